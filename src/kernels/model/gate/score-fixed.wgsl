// Scores in fixed point where scores are f32: integers under 2^24.

fn exponentialsOf(difference: vec4f) -> vec4u {
  return fixedExponentials(vec4i(-difference));
}

fn scaleOf(total: u32) -> f32 {
  return f32(RECIPROCAL_ONE / total);
}

fn scoresOf(logit: vec4f, stats: Stats) -> vec4f {
  return vec4f(fixedScores(vec4i(logit), vec4i(i32(stats.max)), vec4u(u32(stats.scale))));
}
