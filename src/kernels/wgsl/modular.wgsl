// A modular router hands on the ids: expert work is another kernel's.

// [maxNumBatchedTokens, L, K]
@group(0) @binding(3) var<storage, read_write> routedExperts: array<u32>;

fn putId(row: u32, layer: u32, k: u32, expert: u32, before: u32) {
  routedExperts[(row * NUM_LAYERS + layer) * TOP_K + k] = expert;
}

fn expertWork(seed: u32, layer: u32, expert: u32) -> u32 {
  return 0u;
}

fn putWork(row: u32, layer: u32, work: u32) {
}
