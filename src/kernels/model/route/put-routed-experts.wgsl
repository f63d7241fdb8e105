// Ids of a router that makes its own logits.

// [maxNumBatchedTokens, L, K]
@group(0) @binding(3) var<storage, read_write> routedExperts: array<u32>;

fn weightOf(row: u32, expert: u32, stats: Stats) -> Sum {
  return Sum(0);
}

fn putChoice(row: u32, k: u32, expert: u32, weight: Sum, total: Sum) {
  routedExperts[(gate_token * NUM_LAYERS + gate_layer) * TOP_K + k] = expert;
}
