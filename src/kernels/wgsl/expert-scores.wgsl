// What both scored routers share: logits, and the choices that are made of them. ../expert-scores.ts says what a choice is, and why nothing
// overflows; a choice is an integer, so every device makes the same.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
// [L, E, G] weights in f32, from TABLE on the scores, from BIASES on [L, E] biases.
@group(0) @binding(2) var<storage, read> gateWeights: array<vec4u>;

const CHUNKS: u32 = GATE_WIDTH / 8u;
const BY_LOGIT: u32 = 0u;
const BY_TABLE: u32 = 1u;
const BY_SOFTMAX: u32 = 2u;

alias Inputs = array<vec4f, CHUNKS * 2u>;

fn inputsOf(seed: u32) -> Inputs {
  var inputs: Inputs;
  for (var c = 0u; c < CHUNKS; c++) {
    let word = gateWord(seed, c);
    inputs[c * 2u] = gateInputs(word, 0u) / 1024.0;
    inputs[c * 2u + 1u] = gateInputs(word, 16u) / 1024.0;
  }
  return inputs;
}

fn logitOf(inputs: ptr<function, Inputs>, layer: u32, expert: u32) -> i32 {
  let first = (layer * NUM_EXPERTS + expert) * CHUNKS * 2u;
  var logit = 0.0;
  for (var c = 0u; c < CHUNKS * 2u; c++) {
    logit += dot((*inputs)[c], bitcast<vec4f>(gateWeights[first + c]));
  }
  return i32(logit);
}

fn wordAt(place: u32) -> i32 {
  return bitcast<i32>(gateWeights[place / 4u][place % 4u]);
}

fn biasOf(layer: u32, expert: u32) -> i32 {
  if (HAS_BIAS == 0u) {
    return 0;
  }
  return wordAt(BIASES + layer * NUM_EXPERTS + expert);
}

// Not for softmax, whose choices need the whole row.
fn choiceOf(logit: i32, layer: u32, expert: u32) -> i32 {
  if (CHOICE == BY_LOGIT) {
    return logit;
  }
  return wordAt(TABLE + u32(logit + i32(LOWEST_LOGIT))) + biasOf(layer, expert);
}

// The share of a softmax that an expert `distance` under the largest logit has in its sum.
fn exponentialOf(distance: u32) -> u32 {
  return u32(wordAt(TABLE + distance));
}

fn reciprocalOf(sum: u32) -> u32 {
  return RECIPROCAL_ONE / sum;
}

fn softmaxChoiceOf(exponential: u32, reciprocal: u32, layer: u32, expert: u32) -> i32 {
  return i32((exponential * reciprocal) >> SCORE_SHIFT) + biasOf(layer, expert);
}

fn keyOfChoice(choice: i32, expert: u32) -> i32 {
  return choice * 1024 + i32(1023u - expert);
}
