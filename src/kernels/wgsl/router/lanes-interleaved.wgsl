// The lanes of a row share its experts out quad by quad, so that neighbouring lanes read neighbouring memory.

fn startOf(lane: u32) -> u32 {
  return 4u * lane;
}

fn endOf(lane: u32) -> u32 {
  return NUM_EXPERTS;
}

// Number of experts that the lane selects from.
fn sizeOf(lane: u32) -> u32 {
  // Whole turns of 4 · LANES experts, and the lane's share of what is left.
  let left = NUM_EXPERTS % (4u * LANES);
  return NUM_EXPERTS / (4u * LANES) * 4u + min(4u, max(left, 4u * lane) - 4u * lane);
}

fn keepIf(best: Best, isKept: bool) -> Best {
  return best;
}

fn isGroupKept(lane: u32, firstLane: u32, first: i32, second: i32) -> bool {
  return true;
}
