// Logits of rows whose length, and whose groups' length, is a multiple of four: [T, E / 4]. GUARDED: quads beyond `end`
// are asked for.

@group(0) @binding(1) var<storage, read> logits: array<vec4u>;
// [E / 4], read only by functions with a selection bias.
@group(0) @binding(4) var<storage, read> selectionBias: array<vec4f>;

// Bits of the logits of the experts `first` to `first + 3`, as far as they lie before `end`.
fn readQuad(row: u32, first: u32, end: u32) -> vec4u {
  if (GUARDED != 0u) {
    if (first >= end) {
      return vec4u(0xff800000u);
    }
  }
  return logits[(row * NUM_EXPERTS + first) >> 2u];
}

fn isBefore(first: u32, end: u32) -> vec4<bool> {
  if (GUARDED == 0u) {
    return vec4<bool>(true);
  }
  return vec4<bool>(first < end);
}

fn readOne(row: u32, expert: u32) -> u32 {
  let at = row * NUM_EXPERTS + expert;
  return logits[at >> 2u][at & 3u];
}

fn readBias(first: u32, end: u32) -> vec4f {
  return selectionBias[first >> 2u];
}

fn readOneBias(expert: u32) -> f32 {
  return selectionBias[expert >> 2u][expert & 3u];
}
