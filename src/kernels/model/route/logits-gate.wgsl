// Logits that the router makes itself (gate.wgsl). Rows are in order of layers, so that neighbouring rows read the same
// weights.

var<private> gate_inputs: array<vec4f, GATE_QUADS>;

fn numRows() -> u32 {
  return stepInput[H_NUM_TOKENS] * NUM_LAYERS;
}

fn enterRow(row: u32) {
  let numTokens = stepInput[H_NUM_TOKENS];
  enterToken(row % numTokens, row / numTokens);
  for (var quad = 0u; quad < GATE_QUADS; quad++) {
    gate_inputs[quad] = inputsOf(gate_seed, quad);
  }
}

fn logitOf(expert: u32) -> f32 {
  var logit = 0.0;
  for (var quad = 0u; quad < GATE_QUADS; quad++) {
    logit += dot(gate_inputs[quad], weightsOf(gate_layer, expert, quad));
  }
  return logit;
}

// Bits of the logits of the experts `first` to `first + 3`, as far as they lie before `end`.
fn readQuad(row: u32, first: u32, end: u32) -> vec4u {
  let experts = min(vec4u(first) + vec4u(0u, 1u, 2u, 3u), vec4u(end - 1u));
  return bitcast<vec4u>(vec4f(logitOf(experts.x), logitOf(experts.y), logitOf(experts.z), logitOf(experts.w)));
}

fn isBefore(first: u32, end: u32) -> vec4<bool> {
  return vec4u(first) + vec4u(0u, 1u, 2u, 3u) < vec4u(end);
}

fn readOne(row: u32, expert: u32) -> u32 {
  return bitcast<u32>(logitOf(expert));
}

fn readBias(first: u32, end: u32) -> vec4f {
  return biasesOf(gate_layer, first);
}

fn readOneBias(expert: u32) -> f32 {
  return f32(biasOf(gate_layer, expert));
}
