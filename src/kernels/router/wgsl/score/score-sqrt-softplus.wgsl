// softplus(l) = max(l, 0) + log(1 + e^−|l|). A device's log is good to 2^-21 absolutely, too little for a small
// argument; hence log(1 + t) = 2 artanh(t / (2 + t)), whose argument is at most 1/3. Below −87 the score is that of
// −87: nothing in it leaves the normal f32.
fn scoresOf(given: vec4f, stats: Stats) -> vec4f {
  let logit = max(given, vec4f(-87.0));
  let small = exp(-abs(logit));
  let z = small / (2.0 + small);
  let square = z * z;
  var series = 1.0 / 11.0 + square * (1.0 / 13.0);
  series = 1.0 / 7.0 + square * (1.0 / 9.0 + square * series);
  series = 1.0 + square * (1.0 / 3.0 + square * (1.0 / 5.0 + square * series));
  return sqrt(max(logit, vec4f(0.0)) + small * (2.0 / (2.0 + small)) * series);
}
