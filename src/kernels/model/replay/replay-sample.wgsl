// The next tokens of a recording instead of sampled ones, found by hidden state. A thread a request. ../replay-table.ts
// has the layout.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> sampled: array<u32>;
@group(0) @binding(3) var<storage, read_write> lastTokens: array<u32>;
@group(0) @binding(4) var<storage, read> recording: array<u32>;

const STRIDE: u32 = 2u;

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
fn main(@builtin(global_invocation_id) id: vec3u) {
  let ordinal = id.x;
  if (ordinal >= stepInput[H_NUM_REQUESTS]) {
    return;
  }
  let request = stepInput[H_REQUESTS] + REQUEST_WORDS * ordinal;
  let samples = stepInput[request + R_SAMPLES];
  sampled[ordinal * STRIDE] = samples;
  if (samples == 0u) {
    return;
  }
  let row = stepInput[request + R_ROW_START] + stepInput[request + R_TOKEN_COUNT] - 1u;
  let recorded = recording[bucketOf(hidden[row].xy) + B_NEXT_TOKEN];
  let token = select(recorded - 1u, 0u, recorded == 0u);
  sampled[ordinal * STRIDE + 1u] = token;
  lastTokens[stepInput[request + R_BATCH_SLOT]] = token;
}
