// Sums over a row in f32: of a softmax's exponentials, and of weights.

alias Sum = f32;

fn exponentialsOf(difference: vec4f) -> vec4f {
  return exp(difference);
}

fn scaleOf(total: f32) -> f32 {
  return 1.0 / total;
}
