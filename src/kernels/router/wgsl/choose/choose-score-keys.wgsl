// Keys of choices that are scores are made of their orders, as they are.

const IS_FIXED: bool = false;
const LOWEST_KEY: i32 = EMPTY;

fn looseOrders(bits: vec4u, first: u32, end: u32, stats: Stats) -> vec4i {
  return choiceOrders(bits, first, end, stats);
}
