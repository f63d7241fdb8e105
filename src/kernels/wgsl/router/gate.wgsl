// The gate: logits of hidden states, sums of small integers that are exact in any order; and scores of them in fixed point, from a table.
// ../gate-scores.ts says why nothing overflows.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
// In f32: [L, E, G] weights, from TABLE on the scores, from BIASES on [L, E] selection biases.
@group(0) @binding(2) var<storage, read> gateWeights: array<vec4f>;

const GATE_QUADS: u32 = GATE_WIDTH / 4u;

// Four inputs of a token at a layer.
fn inputsOf(token: u32, layer: u32, quad: u32) -> vec4f {
  return gateInputs(gateWord(gateSeed(hidden[token].xy, layer), quad / 2u), (quad % 2u) * 16u) / 1024.0;
}

fn weightsOf(layer: u32, expert: u32, quad: u32) -> vec4f {
  return gateWeights[(layer * NUM_EXPERTS + expert) * GATE_QUADS + quad];
}

fn wordAt(place: u32) -> f32 {
  return gateWeights[place / 4u][place % 4u];
}

fn wordsAt(places: vec4u) -> vec4f {
  return vec4f(wordAt(places.x), wordAt(places.y), wordAt(places.z), wordAt(places.w));
}

fn biasesOf(layer: u32, first: u32) -> vec4f {
  if (HAS_BIAS == 0u) {
    return vec4f(0.0);
  }
  return wordsAt(vec4u(BIASES + layer * NUM_EXPERTS + first) + vec4u(0u, 1u, 2u, 3u));
}
