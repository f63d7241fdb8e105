// A softmax in fixed point, of logits that are integers: the table holds the exponentials of their distances to the
// largest.

alias Sum = u32;

fn fixedExponentials(distance: vec4i) -> vec4u {
  return vec4u(wordsAt(vec4u(distance + vec4i(i32(TABLE)))));
}

fn fixedShares(exponential: vec4u, reciprocal: vec4u) -> vec4i {
  return vec4i((exponential * reciprocal) >> vec4u(SCORE_SHIFT));
}

fn fixedScores(logit: vec4i, largest: vec4i, reciprocal: vec4u) -> vec4i {
  return fixedShares(fixedExponentials(largest - logit), reciprocal);
}
