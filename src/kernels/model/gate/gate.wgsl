// The gate: logits of hidden states, sums of small integers that are exact in any order; and scores of them in fixed
// point, from a table. ../expert-scores.ts says why nothing overflows.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
// [L, E, G] weights in f32; as i32, from TABLE on the scores, from BIASES on [L, E] selection biases.
@group(0) @binding(2) var<storage, read> gateWeights: array<vec4f>;

// What a fused router is at; and the expert of the place before, which shares a word of routing_replay_out.
var<private> gate_token: u32;
var<private> gate_layer: u32;
var<private> gate_seed: u32;
var<private> gate_before: u32;

const GATE_QUADS: u32 = GATE_WIDTH / 4u;

fn enterToken(token: u32, layer: u32) {
  gate_token = token;
  gate_layer = layer;
  gate_seed = gateSeed(hidden[token].xy, FIRST_LAYER + layer);
}

// Four inputs of a token at a layer.
fn inputsOf(seed: u32, quad: u32) -> vec4f {
  return gateInputs(gateWord(seed, quad / 2u), (quad % 2u) * 16u);
}

fn weightsOf(layer: u32, expert: u32, quad: u32) -> vec4f {
  return gateWeights[(layer * NUM_EXPERTS + expert) * GATE_QUADS + quad];
}

fn wordAt(place: u32) -> i32 {
  return bitcast<i32>(gateWeights[place / 4u][place % 4u]);
}

fn wordsAt(places: vec4u) -> vec4i {
  return vec4i(wordAt(places.x), wordAt(places.y), wordAt(places.z), wordAt(places.w));
}

fn biasOf(layer: u32, expert: u32) -> i32 {
  if (HAS_BIAS == 0u) {
    return 0;
  }
  return wordAt(BIASES + layer * NUM_EXPERTS + expert);
}

fn biasesOf(layer: u32, first: u32) -> vec4f {
  let biases = vec4i(
    biasOf(layer, first),
    biasOf(layer, first + 1u),
    biasOf(layer, first + 2u),
    biasOf(layer, first + 3u),
  );
  return vec4f(biases);
}
