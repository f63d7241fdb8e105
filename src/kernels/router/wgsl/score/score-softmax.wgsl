fn scoresOf(logit: vec4f, stats: Stats) -> vec4f {
  return exp(logit - stats.max) * stats.scale;
}
