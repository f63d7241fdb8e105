// Router with subgroups of any size ≥ E / KEYS_PER_LANE: a subgroup takes one token through one layer. Its lanes share the experts out, keep
// their keys in registers, and find the K best in K rounds of one integer max over the subgroup.
//
// A key is `logit · 1024 + 1023 − id`, exact in f32 and an i32: keys are distinct and ordered as wanted (value descending, id ascending).

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
@group(0) @binding(2) var<storage, read> gateWeights: array<vec4f>;

const CHUNKS: u32 = GATE_WIDTH / 8u;

@compute @workgroup_size(ROUTE_THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) subgroupSize: u32,
) {
  let size = lanesOf(subgroupSize);
  let layer = group.y;
  let subgroups = ROUTE_THREADS / size;
  let numTokens = stepInput[H_NUM_TOKENS];
  let firstWeight = layer * NUM_EXPERTS * CHUNKS * 2u;
  var row = group.x * subgroups + subgroupBroadcastFirst(thread) / size;
  // Reads beyond the buffer are clamped, and writes are guarded.
  loop {
    let seed = gateSeed(hidden[row].xy, layer);
    var inputs: array<vec4f, CHUNKS * 2u>;
    for (var c = 0u; c < CHUNKS; c++) {
      let word = gateWord(seed, c);
      inputs[c * 2u] = gateInputs(word, 0u);
      inputs[c * 2u + 1u] = gateInputs(word, 16u);
    }
    var keys: Keys;
    for (var i = 0u; i < KEYS_PER_LANE; i++) {
      let isExpert = i * size + lane < NUM_EXPERTS;
      let expert = min(i * size + lane, NUM_EXPERTS - 1u);
      let at = firstWeight + expert * CHUNKS * 2u;
      var key = f32(1023u - expert);
      for (var c = 0u; c < CHUNKS * 2u; c++) {
        key += dot(inputs[c], gateWeights[at + c]);
      }
      keys[i] = select(LOWEST, i32(key), isExpert);
    }
    putBest(&keys, row, layer, lane, size, seed, row < numTokens);
    row += groups.x * subgroups;
    if (row >= numTokens) {
      break;
    }
  }
}
