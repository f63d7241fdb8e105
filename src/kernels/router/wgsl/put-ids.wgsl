// Ids alone. The rows are part of a larger output: params[1] says from which of its rows on.

// [T, K]
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;

fn weightOf(row: u32, expert: u32, stats: Stats) -> Sum {
  return Sum(0);
}

fn putChoice(row: u32, k: u32, expert: u32, weight: Sum, total: Sum) {
  ids[(params[1] + row) * TOP_K + k] = expert;
}
