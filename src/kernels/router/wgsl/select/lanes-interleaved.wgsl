// The lanes of a row share its experts out quad by quad, so that neighbouring lanes read neighbouring memory.

fn startOf(lane: u32) -> u32 {
  return 4u * lane;
}

fn endOf(lane: u32) -> u32 {
  return NUM_EXPERTS;
}

// The first expert of the i-th quad of a chunk, counted from the chunk's first.
fn offsetOf(lane: u32, i: u32) -> u32 {
  return i * QUAD_STEP;
}

fn isGroupKept(lane: u32, firstLane: u32, score: i32) -> bool {
  return true;
}
