// Ids and weights. Scores whose sum is under the smallest normal f32 have weights of 0.

// [T, K]
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
// [T, K]
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;

fn finalWeight(weight: f32, total: f32) -> f32 {
  if (RENORMALIZE == 0u) {
    return weight * SCALE;
  }
  let denominator = max(total + EPSILON, MIN_DENOMINATOR);
  return select(0.0, weight / denominator * SCALE, denominator >= SMALLEST);
}

// The k-th choice of a row, its own weight, and that of all K together.
fn putChoice(row: u32, k: u32, expert: u32, weight: f32, total: f32) {
  ids[row * TOP_K + k] = expert;
  weights[row * TOP_K + k] = finalWeight(weight, total);
}
