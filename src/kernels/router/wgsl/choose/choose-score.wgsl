// The choice is the score, with the selection bias where there is one.

fn choiceOrders(bits: vec4u, first: u32, end: u32, stats: Stats) -> vec4i {
  var choice = scoresOf(boundedOf(bits), stats);
  if (HAS_BIAS != 0u) {
    choice += readBias(first, end);
  }
  return orderOf(bitcast<vec4u>(choice));
}

fn orderAt(row: u32, expert: u32, stats: Stats) -> i32 {
  var choice = scoresOf(boundedOf(vec4u(readOne(row, expert))), stats).x;
  if (HAS_BIAS != 0u) {
    choice += readOneBias(expert);
  }
  return orderOf(vec4u(bitcast<u32>(choice))).x;
}
