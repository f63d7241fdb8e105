// A chain of hashes, each waiting for the one before it: takes time and does nothing else. One thread, so that it
// leaves a software adapter's other core alone. The end of the chain is written, so that no compiler drops it.

@group(0) @binding(0) var<storage, read_write> ballast: array<u32>;

@compute @workgroup_size(1)
fn main() {
  let iterations = ballast[0];
  var x = iterations;
  for (var i = 0u; i < iterations; i++) {
    x = scramble(x + i);
  }
  ballast[1] = x;
}
