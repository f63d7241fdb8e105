// Keys of choices that are sigmoids, with the selection bias where there is one, hold them in fixed point, in steps of
// 2⁻¹⁹: what an id of eight bits takes from a float near one is sixteen times that.
//
//     params[1] − 6  …  params[1] + 2
//
// params[1] is a whole number; each bias lies at most 6 under it, and less than 1 over it.
//
// A row in which a bound is met, or with a logit that is no number or infinite, is selected anew; so another number
// makes rows slow, not wrong.

const IS_FIXED: bool = true;
const LOWEST_KEY: i32 = EMPTY | MASK;

fn looseOrders(bits: vec4u, first: u32, end: u32, stats: Stats) -> vec4i {
  var offset = vec4f(0.75 - bitcast<f32>(params[1]) * 0.125);
  if (HAS_BIAS != 0u) {
    offset += readBias(first, end) * 0.125;
  }
  var logit = bitcast<vec4f>(bits);
  if (SOFT_CAP > 0.0) {
    logit = boundedOf(bits);
  }
  let part = saturate(scoresOf(logit, stats) * 0.125 + offset);
  return bitcast<vec4i>((bitcast<vec4u>(part * 0.5 + 1.0) << vec4u(9u)) ^ vec4u(0x80000000u));
}
