// A monolithic router does the work of the experts that it chose: each folds a number of its own into the token's sum, so that a wrong choice, or one
// that was left out, shows. Sums wrap, and are exact in any order. What stands for an expert's weights is its place in the model.

// [maxNumBatchedTokens, L]
@group(0) @binding(3) var<storage, read_write> expertOutput: array<u32>;

fn expertWork(seed: u32, layer: u32, expert: u32) -> u32 {
  return scramble(seed ^ ((layer * NUM_EXPERTS + expert + 1u) * 0x9e3779b1u));
}

fn putWork(row: u32, layer: u32, work: u32) {
  expertOutput[row * NUM_LAYERS + layer] = work;
}
