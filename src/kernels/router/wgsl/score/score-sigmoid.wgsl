// Below −87 the sigmoid is that of −87: still a normal f32, whose exponential does not overflow.
fn scoresOf(logit: vec4f, stats: Stats) -> vec4f {
  return 1.0 / (1.0 + exp(-max(logit, vec4f(-87.0))));
}
