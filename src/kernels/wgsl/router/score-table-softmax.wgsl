// A softmax in fixed point, of logits that are integers: the table holds the exponentials of their distances to the largest.

alias Sum = u32;

fn exponentialsOf(difference: vec4f) -> vec4u {
  return vec4u(wordsAt(vec4u(TABLE) + vec4u(-difference)));
}

fn scaleOf(total: u32) -> f32 {
  return f32(RECIPROCAL_ONE / total);
}

fn scoresOf(logit: vec4f, stats: Stats) -> vec4f {
  return vec4f((exponentialsOf(logit - stats.max) * u32(stats.scale)) >> vec4u(SCORE_SHIFT));
}
