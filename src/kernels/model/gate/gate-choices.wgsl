// Choices of a tile of tokens at one layer: what the router kernels select from. A choice is an integer in f32, so
// every device makes the same.
//
//     token    firstToken ─ TILE ─ TILE ─ …         a workgroup a tile and layer
//     thread   takes four experts through a share of the tile; neighbours write neighbouring memory
//
// params[1] is the first row of the chunk, which is whole tokens; its number of rows is told to the router in
// params[0].

@group(0) @binding(3) var<storage, read_write> params: array<u32>;

// Threads that share out the experts of a token, four each; and tokens that a thread takes.
const EXPERT_QUADS: u32 = (NUM_EXPERTS + 3u) / 4u;
const TOKENS_AT_ONCE: u32 = THREADS / SPAN;
const OWN_TOKENS: u32 = TILE / TOKENS_AT_ONCE;
const ROUNDS: u32 = select(1u, 3u, NEEDS_SUM != 0u);

var<workgroup> inputs: array<vec4f, TILE * GATE_QUADS>;
var<workgroup> largest: array<atomic<i32>, TILE>;
var<workgroup> sums: array<atomic<u32>, TILE>;

// Logits of four experts for each of the thread's tokens.
fn logitsOf(layer: u32, first: u32, slot: u32) -> array<vec4f, OWN_TOKENS> {
  var logits: array<vec4f, OWN_TOKENS>;
  let experts = min(vec4u(first) + vec4u(0u, 1u, 2u, 3u), vec4u(NUM_EXPERTS - 1u));
  for (var quad = 0u; quad < GATE_QUADS; quad++) {
    let a = weightsOf(layer, experts.x, quad);
    let b = weightsOf(layer, experts.y, quad);
    let c = weightsOf(layer, experts.z, quad);
    let d = weightsOf(layer, experts.w, quad);
    for (var i = 0u; i < OWN_TOKENS; i++) {
      let x = inputs[(i * TOKENS_AT_ONCE + slot) * GATE_QUADS + quad];
      logits[i] += vec4f(dot(x, a), dot(x, b), dot(x, c), dot(x, d));
    }
  }
  return logits;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let layer = group.y;
  let firstToken = params[1] / NUM_LAYERS;
  let tile = group.x * TILE;
  let numTokens = min(stepInput[H_NUM_TOKENS] - firstToken, CHUNK_TOKENS);
  if (layer == 0u && tile == 0u && thread == 0u) {
    params[0] = numTokens * NUM_LAYERS;
  }
  for (var i = thread; i < TILE * GATE_QUADS; i += THREADS) {
    let token = firstToken + tile + i / GATE_QUADS;
    inputs[i] = inputsOf(gateSeed(hidden[token].xy, FIRST_LAYER + layer), i % GATE_QUADS);
  }
  if (NEEDS_SUM != 0u && thread < TILE) {
    atomicStore(&largest[thread], -0x7fffffff);
    atomicStore(&sums[thread], 0u);
  }
  workgroupBarrier();

  let slot = thread / SPAN;
  for (var round = 0u; round < ROUNDS; round++) {
    for (var quad = thread % SPAN; quad < EXPERT_QUADS; quad += SPAN) {
      let first = 4u * quad;
      let isExpert = vec4u(first) + vec4u(0u, 1u, 2u, 3u) < vec4u(NUM_EXPERTS);
      var logits = logitsOf(layer, first, slot);
      for (var i = 0u; i < OWN_TOKENS; i++) {
        let own = i * TOKENS_AT_ONCE + slot;
        let logit = logits[i];
        if (round + 1u == ROUNDS) {
          var choice = logit;
          if (BY_LOGIT == 0u) {
            var stats = Stats(0.0, 1.0);
            if (NEEDS_SUM != 0u) {
              stats = Stats(f32(atomicLoad(&largest[own])), scaleOf(atomicLoad(&sums[own])));
            }
            choice = scoresOf(logit, stats) + biasesOf(layer, first);
          }
          if (tile + own < numTokens) {
            putChoices((tile + own) * NUM_LAYERS + layer, first, choice);
          }
        } else if (round == 0u) {
          let best = max(max(logit.x, logit.y), max(logit.z, logit.w));
          atomicMax(&largest[own], i32(best));
        } else {
          let exponentials = exponentialsOf(logit - f32(atomicLoad(&largest[own])));
          let terms = select(vec4u(0u), exponentials, isExpert);
          atomicAdd(&sums[own], terms.x + terms.y + terms.z + terms.w);
        }
      }
    }
    workgroupBarrier();
  }
}
