enable subgroups;

// Subgroup operations stand in loops whose bounds come from workgroup ids and the subgroup size. They are uniform in a subgroup, which the
// compiler cannot prove.
diagnostic(off, subgroup_uniformity);

// Router with subgroups of any size ≥ E / KEYS_PER_LANE: a subgroup takes one token through one layer. Its lanes share the experts out, keep
// their keys in registers, and find the K best in K rounds of one integer max over the subgroup.
//
// A key is `logit · 1024 + 1023 − id`, exact in f32 and an i32: keys are distinct and ordered as wanted (value descending, id
// ascending), so the lane that won looks for its largest key under the one found, and nothing is struck out.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
@group(0) @binding(2) var<storage, read> gateWeights: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> routedExperts: array<u32>;

const CHUNKS: u32 = GATE_WIDTH / 8u;
const LOWEST: i32 = -0x7fffffff;

@compute @workgroup_size(ROUTE_THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) size: u32,
) {
  let layer = group.y;
  let subgroups = ROUTE_THREADS / size;
  let subgroup = subgroupBroadcastFirst(thread) / size;
  let numTokens = stepInput[H_NUM_TOKENS];
  let firstWeight = layer * NUM_EXPERTS * CHUNKS * 2u;

  for (var row = group.x * subgroups + subgroup; row < numTokens; row += groups.x * subgroups) {
    let seed = gateSeed(hidden[row].xy, layer);
    var inputs: array<vec4f, CHUNKS * 2u>;
    for (var c = 0u; c < CHUNKS; c++) {
      let word = gateWord(seed, c);
      inputs[c * 2u] = gateInputs(word, 0u);
      inputs[c * 2u + 1u] = gateInputs(word, 16u);
    }

    var keys: array<i32, KEYS_PER_LANE>;
    var best = LOWEST;
    for (var i = 0u; i < KEYS_PER_LANE; i++) {
      let expert = i * size + lane;
      keys[i] = LOWEST;
      if (expert < NUM_EXPERTS) {
        var key = f32(1023u - expert);
        for (var c = 0u; c < CHUNKS * 2u; c++) {
          key += dot(inputs[c], gateWeights[firstWeight + expert * CHUNKS * 2u + c]);
        }
        keys[i] = i32(key);
        best = max(best, keys[i]);
      }
    }

    for (var k = 0u; k < TOP_K; k++) {
      let found = subgroupMax(best);
      if (lane == k % size) {
        routedExperts[(row * NUM_LAYERS + layer) * TOP_K + k] = 1023u - (u32(found) & 1023u);
      }
      if (best == found) {
        best = LOWEST;
        for (var i = 0u; i < KEYS_PER_LANE; i++) {
          best = max(best, select(LOWEST, keys[i], keys[i] < found));
        }
      }
    }
  }
}
