// Scores in fixed point, of logits that are integers.

alias Sum = u32;

fn fixedExponentials(distance: vec4i) -> vec4u {
  return vec4u(0u);
}

fn fixedShares(exponential: vec4u, reciprocal: vec4u) -> vec4i {
  return vec4i(0);
}

fn fixedScores(logit: vec4i, largest: vec4i, reciprocal: vec4u) -> vec4i {
  return wordsAt(vec4u(logit + vec4i(i32(TABLE + LOWEST_LOGIT))));
}
