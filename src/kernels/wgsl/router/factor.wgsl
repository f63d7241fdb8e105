// Renormalisation and scale. Scores whose sum is under the smallest normal f32 have weights of 0.

fn finalWeight(weight: f32, total: f32) -> f32 {
  if (RENORMALIZE == 0u) {
    return weight * SCALE;
  }
  let denominator = max(total + EPSILON, MIN_DENOMINATOR);
  return select(0.0, weight / denominator * SCALE, denominator >= SMALLEST);
}
