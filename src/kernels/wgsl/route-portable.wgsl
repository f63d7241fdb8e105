// Router without subgroups: a thread takes ROWS_PER_THREAD tokens through one layer, so that each weight it loads serves all of them.
// The layer is the workgroup's, hence every thread of it loads the same weights at the same time.
//
// Selection: logit and id share one f32, `logit · 1024 + 1023 − id`, exact below 2^24. So keys are distinct, their order is the wanted one
// (value descending, id ascending), and keeping the K best is a chain of max and min in registers. The inputs carry the factor 1024.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
@group(0) @binding(2) var<storage, read> gateWeights: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> routedExperts: array<u32>;

const CHUNKS: u32 = GATE_WIDTH / 8u;
const LOWEST: f32 = -3.0e38;

@compute @workgroup_size(ROUTE_THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
  let layer = group.y;
  let numTokens = stepInput[H_NUM_TOKENS];
  let firstRow = id.x * ROWS_PER_THREAD;
  if (firstRow >= numTokens) {
    return;
  }
  var inputs: array<vec4f, ROWS_PER_THREAD * CHUNKS * 2u>;
  var best: array<f32, ROWS_PER_THREAD * TOP_K>;
  for (var r = 0u; r < ROWS_PER_THREAD; r++) {
    let seed = gateSeed(hidden[min(firstRow + r, numTokens - 1u)].xy, layer);
    for (var c = 0u; c < CHUNKS; c++) {
      let word = gateWord(seed, c);
      inputs[(r * CHUNKS + c) * 2u] = gateInputs(word, 0u);
      inputs[(r * CHUNKS + c) * 2u + 1u] = gateInputs(word, 16u);
    }
    for (var k = 0u; k < TOP_K; k++) {
      best[r * TOP_K + k] = LOWEST;
    }
  }
  var weight = layer * NUM_EXPERTS * CHUNKS * 2u;
  for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
    for (var r = 0u; r < ROWS_PER_THREAD; r++) {
      var key = f32(1023u - expert);
      for (var c = 0u; c < CHUNKS * 2u; c++) {
        key += dot(inputs[r * CHUNKS * 2u + c], gateWeights[weight + c]);
      }
      for (var k = 0u; k < TOP_K; k++) {
        let kept = best[r * TOP_K + k];
        best[r * TOP_K + k] = max(kept, key);
        key = min(kept, key);
      }
    }
    weight += CHUNKS * 2u;
  }
  for (var r = 0u; r < ROWS_PER_THREAD; r++) {
    if (firstRow + r < numTokens) {
      let row = ((firstRow + r) * NUM_LAYERS + layer) * TOP_K;
      for (var k = 0u; k < TOP_K; k++) {
        routedExperts[row + k] = 1023u - (u32(i32(best[r * TOP_K + k])) & 1023u);
      }
    }
  }
}
