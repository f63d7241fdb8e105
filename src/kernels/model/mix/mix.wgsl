// Hash functions, prepended to each kernel. reference/mix.ts says what they mean.

fn scramble(value: u32) -> u32 {
  var x = value;
  x = (x ^ (x >> 16u)) * 0x7feb352du;
  x = (x ^ (x >> 15u)) * 0x846ca68bu;
  return x ^ (x >> 16u);
}

fn keyOf(token: u32, position: u32, epoch: u32) -> vec2u {
  let base = scramble(position + epoch * 0x9e3779b1u);
  return vec2u(scramble(token ^ base), scramble(token * 0x85ebca6bu + base));
}

fn termOf(key: vec2u, position: u32) -> vec2u {
  return vec2u(scramble(key.x + position * 0x9e3779b1u), scramble(key.y ^ (position * 0xc2b2ae35u)));
}

fn hiddenOf(sum: vec2u) -> vec2u {
  let x = scramble(sum.x ^ 0x243f6a88u);
  return vec2u(x, scramble(sum.y + x));
}

fn foldedOf(received: vec2u, own: vec2u) -> vec2u {
  return vec2u(
    scramble(received.x ^ (own.x * 0x9e3779b1u) ^ 0x13198a2eu),
    scramble((received.y + own.y * 0x85ebca6bu) ^ 0x243f6a88u),
  );
}

fn gateSeed(hidden: vec2u, layer: u32) -> u32 {
  return scramble(hidden.x + (layer + 1u) * 0x9e3779b1u) ^ hidden.y;
}

fn gateWord(seed: u32, chunk: u32) -> u32 {
  return scramble(seed + (chunk + 1u) * 0xc2b2ae35u);
}

// Four gate inputs, nibbles from bit `shift` on.
fn gateInputs(word: u32, shift: u32) -> vec4f {
  let nibbles = (vec4u(word) >> (vec4u(0u, 4u, 8u, 12u) + shift)) & vec4u(15u);
  return vec4f(nibbles) - 8.0;
}
