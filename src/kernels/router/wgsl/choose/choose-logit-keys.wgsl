// Keys of choices that are logits. Those that are no numbers have any order up to the lowest; a row that chooses one is
// selected anew.

const IS_FIXED: bool = false;
const LOWEST_KEY: i32 = LOWEST_ORDER;

fn looseOrders(bits: vec4u, first: u32, end: u32, stats: Stats) -> vec4i {
  return looseOrderOf(bits);
}
