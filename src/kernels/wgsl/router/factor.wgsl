// Renormalisation and scale in one factor. Scores whose sum is under the smallest normal f32 have weights of 0.

fn factorOf(total: f32) -> f32 {
  if (RENORMALIZE == 0u) {
    return SCALE;
  }
  let denominator = max(total + EPSILON, MIN_DENOMINATOR);
  return select(0.0, SCALE / denominator, denominator >= SMALLEST);
}
