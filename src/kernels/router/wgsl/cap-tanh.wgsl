// Soft cap c · tanh(logit / c). tanh by an exponential, as 1 − 2 / (e^2x + 1), which cancels near 0: a series there.
// Beyond 10 it is 1 in f32.

fn capped(value: vec4f) -> vec4f {
  let x = clamp(value / SOFT_CAP, vec4f(-10.0), vec4f(10.0));
  let square = x * x;
  var series = -17.0 / 315.0 + square * (62.0 / 2835.0);
  series = x * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 + square * series)));
  return SOFT_CAP * select(1.0 - 2.0 / (exp(2.0 * x) + 1.0), series, abs(x) < vec4f(0.2));
}
