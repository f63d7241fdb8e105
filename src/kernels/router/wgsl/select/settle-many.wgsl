// A lane has several places: any row that is not certain is selected anew.
fn settle(
  ranked: Ranked,
  list: List,
  kth: i32,
  row: u32,
  lane: u32,
  firstLane: u32,
  isKept: bool,
  stats: Stats,
  isWrong: bool,
  isAnew: ptr<function, bool>,
) -> array<i32, SLOTS> {
  *isAnew = isWrong;
  return ranked.keys;
}
