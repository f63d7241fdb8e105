// Below −87 the sigmoid is that of −87: still a normal f32, whose exponential does not overflow.
fn scoresOf(logit: vec4f, stats: Stats) -> vec4f {
  return 1.0 / (1.0 + exp(-max(logit, vec4f(-87.0))));
}

// The same with half as many bounds: as an unsigned number, −87 is under all that is lower and has a sign, NaN too; as a signed one, NaN without a sign
// is over +∞.
fn scoresOfBits(bits: vec4u, stats: Stats) -> vec4f {
  if (SOFT_CAP > 0.0) {
    return scoresOf(boundedOf(bits), stats);
  }
  let low = vec4u(0xc2ae0000u);
  let isNaN = bitcast<vec4i>(bits) > vec4i(0x7f800000);
  let logit = bitcast<vec4f>(select(min(bits, low), low, isNaN));
  return 1.0 / (1.0 + exp(-min(logit, vec4f(100.0))));
}
