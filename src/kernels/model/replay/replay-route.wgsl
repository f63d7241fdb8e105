// Rows of a recording instead of a router's, found by hidden state. A thread copies one layer of one row.
// ../replay-table.ts has the layout.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
@group(0) @binding(2) var<storage, read> recording: array<u32>;
@group(0) @binding(3) var<storage, read_write> routedExperts: array<u32>;

fn bucketOf(state: vec2u) -> u32 {
  let mask = recording[0];
  var bucket = state.x & mask;
  loop {
    let at = TABLE_HEADER + BUCKET_WORDS * bucket;
    if (recording[at + B_ROW] == 0u || (recording[at + B_X] == state.x && recording[at + B_Y] == state.y)) {
      return at;
    }
    bucket = (bucket + 1u) & mask;
  }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
  let row = id.x;
  if (row >= stepInput[H_NUM_TOKENS]) {
    return;
  }
  let recorded = recording[bucketOf(hidden[row].xy) + B_ROW];
  let to = (row * NUM_LAYERS + group.y) * TOP_K;
  let rows = TABLE_HEADER + BUCKET_WORDS * (recording[0] + 1u);
  for (var k = 0u; k < TOP_K; k++) {
    if (recorded == 0u) {
      routedExperts[to + k] = UNKNOWN_EXPERT;
    } else {
      routedExperts[to + k] = recording[rows + ((recorded - 1u) * NUM_LAYERS + group.y) * TOP_K + k];
    }
  }
}
