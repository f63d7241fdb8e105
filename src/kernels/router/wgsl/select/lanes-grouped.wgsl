// A lane a group: its score needs no other lane, and its rank one shuffle per group. Lanes beyond the last group have
// no expert.

fn startOf(lane: u32) -> u32 {
  return min(lane, GROUPS - 1u) * GROUP_SIZE;
}

fn endOf(lane: u32) -> u32 {
  return select(0u, (lane + 1u) * GROUP_SIZE, lane < GROUPS);
}

// Neighbouring lanes read their groups' quads in different order: memory that is a whole group apart would meet in one
// bank.
fn offsetOf(lane: u32, i: u32) -> u32 {
  return (i ^ (lane & (ROTATED - 1u))) * QUAD_STEP;
}

// Whether the lane's group is among the best KEPT_GROUPS: greater score, of equals the smaller group.
fn isGroupKept(lane: u32, firstLane: u32, score: i32) -> bool {
  var rank = 0u;
  for (var other = 0u; other < GROUPS; other++) {
    let rival = subgroupShuffle(score, firstLane + other);
    rank += select(0u, 1u, rival > score || (rival == score && other < lane));
  }
  return lane < GROUPS && rank < KEPT_GROUPS;
}
