// Router without subgroups for any shape: gate width to 248, K to 32, E to 1,024. A thread takes one token through one layer.
//
// A key is `logit · 1024 + 1023 − id`, exact in f32 below 2^24, so keys are distinct and ordered as wanted (value descending, id
// ascending); the K best are kept by insertion. The inputs carry the factor 1024.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
// [L, E, G]
@group(0) @binding(2) var<storage, read> gateWeights: array<vec4f>;

const CHUNKS: u32 = GATE_WIDTH / 8u;
const LOWEST: f32 = -3.0e38;

@compute @workgroup_size(ROUTE_THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
  let layer = group.y;
  let row = id.x;
  if (row >= stepInput[H_NUM_TOKENS]) {
    return;
  }
  var inputs: array<vec4f, CHUNKS * 2u>;
  let seed = gateSeed(hidden[row].xy, layer);
  for (var c = 0u; c < CHUNKS; c++) {
    let word = gateWord(seed, c);
    inputs[c * 2u] = gateInputs(word, 0u);
    inputs[c * 2u + 1u] = gateInputs(word, 16u);
  }
  var best: array<f32, TOP_K>;
  for (var k = 0u; k < TOP_K; k++) {
    best[k] = LOWEST;
  }
  var weight = layer * NUM_EXPERTS * CHUNKS * 2u;
  for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
    var key = f32(1023u - expert);
    for (var c = 0u; c < CHUNKS * 2u; c++) {
      key += dot(inputs[c], gateWeights[weight + c]);
    }
    weight += CHUNKS * 2u;
    if (key > best[TOP_K - 1u]) {
      for (var k = 0u; k < TOP_K; k++) {
        let kept = best[k];
        best[k] = max(kept, key);
        key = min(kept, key);
      }
    }
  }
  var previous = 0u;
  var work = 0u;
  for (var k = 0u; k < TOP_K; k++) {
    let expert = 1023u - (u32(i32(best[k])) & 1023u);
    putId(row, layer, k, expert, previous);
    work += expertWork(seed, layer, expert);
    previous = expert;
  }
  putWork(row, layer, work);
}
