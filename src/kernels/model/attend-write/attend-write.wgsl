// Keys of the step's tokens to their KV slots, and the step's changes to the block table. A thread a token, then a
// thread a change. It is a dispatch of its own, in front of `attend`, because requests of one step can share a block:
// what one writes another reads.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> slotMapping: array<u32>;
@group(0) @binding(2) var<storage, read> lastTokens: array<u32>;
@group(0) @binding(3) var<storage, read_write> kvKeys: array<vec2u>;
@group(0) @binding(4) var<storage, read_write> blockTable: array<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let stride = groups.x * THREADS;
  let numTokens = stepInput[H_NUM_TOKENS];
  for (var row = id.x; row < numTokens; row += stride) {
    let request = stepInput[H_REQUESTS] + REQUEST_WORDS * stepInput[stepInput[H_TOKEN_REQUESTS] + row];
    let offset = row - stepInput[request + R_ROW_START];
    var token = stepInput[HEADER_WORDS + row];
    if (token == FROM_DEVICE) {
      let tail = stepInput[request + R_TOKEN_COUNT] - stepInput[request + R_NUM_DRAFTS] - 1u;
      token = lastTokens[stepInput[request + R_BATCH_SLOT] * (1u + NUM_SPECULATIVE_TOKENS) + offset - tail];
    }
    kvKeys[slotMapping[row]] = keyOf(token, stepInput[request + R_TOKEN_START] + offset, stepInput[H_EPOCH]);
  }
  let numUpdates = stepInput[H_NUM_TABLE_UPDATES];
  for (var update = id.x; update < numUpdates; update += stride) {
    let at = stepInput[H_TABLE_UPDATES] + 2u * update;
    blockTable[stepInput[at]] = stepInput[at + 1u];
  }
}
