fn scoresOf(logit: vec4f, stats: Stats) -> vec4f {
  return exp(logit - stats.max) * stats.scale;
}

fn scoresOfBits(bits: vec4u, stats: Stats) -> vec4f {
  return scoresOf(boundedOf(bits), stats);
}
