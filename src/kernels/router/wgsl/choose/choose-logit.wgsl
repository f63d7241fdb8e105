// The choice is the logit: no bias, no sum over scores.

fn choiceOrders(bits: vec4u, first: u32, end: u32, stats: Stats) -> vec4i {
  return orderOf(bits);
}

fn orderAt(row: u32, expert: u32, stats: Stats) -> i32 {
  return orderOf(vec4u(readOne(row, expert))).x;
}
