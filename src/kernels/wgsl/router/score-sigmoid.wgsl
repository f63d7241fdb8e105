// By the exponential that does not overflow.
fn scoresOf(logit: vec4f, stats: Stats) -> vec4f {
  let small = exp(-abs(logit));
  return select(small, vec4f(1.0), logit >= vec4f(0.0)) / (1.0 + small);
}
