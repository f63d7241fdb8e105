// The lanes of a row share its experts out quad by quad, so that neighbouring lanes read neighbouring memory.

fn startOf(lane: u32) -> u32 {
  return 4u * lane;
}

fn endOf(lane: u32) -> u32 {
  return NUM_EXPERTS;
}

fn isGroupKept(lane: u32, firstLane: u32, first: i32, second: i32) -> bool {
  return true;
}
