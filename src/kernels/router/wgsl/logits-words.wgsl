// Logits of rows of any length: [T, E].

@group(0) @binding(1) var<storage, read> logits: array<u32>;
// [E], read only by functions with a selection bias.
@group(0) @binding(4) var<storage, read> selectionBias: array<f32>;

// Bits of the logits of the experts `first` to `first + 3`, as far as they lie before `end`.
fn readQuad(row: u32, first: u32, end: u32) -> vec4u {
  let at = row * NUM_EXPERTS;
  let last = end - 1u;
  let experts = min(vec4u(first) + vec4u(0u, 1u, 2u, 3u), vec4u(last));
  return vec4u(logits[at + experts.x], logits[at + experts.y], logits[at + experts.z], logits[at + experts.w]);
}

fn isBefore(first: u32, end: u32) -> vec4<bool> {
  return vec4u(first) + vec4u(0u, 1u, 2u, 3u) < vec4u(end);
}

fn readOne(row: u32, expert: u32) -> u32 {
  return logits[row * NUM_EXPERTS + expert];
}

fn readBias(first: u32, end: u32) -> vec4f {
  let experts = min(vec4u(first) + vec4u(0u, 1u, 2u, 3u), vec4u(end - 1u));
  return vec4f(
    selectionBias[experts.x],
    selectionBias[experts.y],
    selectionBias[experts.z],
    selectionBias[experts.w],
  );
}

fn readOneBias(expert: u32) -> f32 {
  return selectionBias[expert];
}
