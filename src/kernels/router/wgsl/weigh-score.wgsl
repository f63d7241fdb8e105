// The weight of a chosen expert, before renormalisation, is its score.

fn weightOf(row: u32, expert: u32, stats: Stats) -> f32 {
  return scoresOf(boundedOf(vec4u(readOne(row, expert))), stats).x;
}
