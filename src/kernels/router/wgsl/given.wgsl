// The rows of a router that is given its logits. params: `routerParams`.

@group(0) @binding(0) var<storage, read> params: array<u32>;

fn numRows() -> u32 {
  return params[0];
}

// Called before anything of the row is read.
fn enterRow(row: u32) {
}
