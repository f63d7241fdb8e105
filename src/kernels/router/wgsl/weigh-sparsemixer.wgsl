// Phi-3.5-MoE's sparse mixer: the share of a chosen expert among the experts behind it in order (those before it were
// chosen earlier) whose logit is within 2ε of its own.

fn weightOf(row: u32, expert: u32, stats: Stats) -> f32 {
  let bits = readOne(row, expert);
  let threshold = boundedOf(vec4u(bits)).x;
  let order = orderOf(vec4u(bits)).x;
  var total = 0.0;
  for (var rival = 0u; rival < NUM_EXPERTS; rival++) {
    let rivalBits = readOne(row, rival);
    let rivalOrder = orderOf(vec4u(rivalBits)).x;
    if (rivalOrder < order || (rivalOrder == order && rival >= expert)) {
      let logit = boundedOf(vec4u(rivalBits)).x;
      if (threshold - logit <= 2.0 * JITTER * max(abs(logit), threshold)) {
        total += exp(logit - threshold);
      }
    }
  }
  return 1.0 / total;
}
