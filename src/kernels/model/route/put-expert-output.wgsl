// A monolithic router does the work of the experts that it chose: each folds a number of its own into the token's sum,
// so that a wrong choice, or one that was left out, shows. Sums wrap, and are exact in any order. What stands for an
// expert's weights is its place in the model.

// [maxNumBatchedTokens, L]
@group(0) @binding(3) var<storage, read_write> expertOutput: array<u32>;

fn weightOf(row: u32, expert: u32, stats: Stats) -> Sum {
  let place = gate_layer * NUM_EXPERTS + expert;
  return scramble(gate_seed ^ ((place + 1u) * 0x9e3779b1u));
}

fn putChoice(row: u32, k: u32, expert: u32, work: Sum, total: Sum) {
  if (k == 0u) {
    expertOutput[gate_token * NUM_LAYERS + gate_layer] = total;
  }
  putReplay(k, expert);
}
