// Settles a row where each chosen expert has a lane of its own. Where a list ran dry, the K rounds again, by lanes that make another one then.
// Then experts whose keys begin like the K-th's are all that may belong there in place of another: each is compared with the last of the chosen
// by whole orders. At last the chosen find their places by counting who is ahead.

fn isAhead(order: i32, key: i32, otherOrder: i32, otherKey: i32) -> bool {
  return order > otherOrder || (order == otherOrder && (key & MASK) > (otherKey & MASK));
}

fn settle(
  keys: array<i32, SLOTS>,
  hand: Hand,
  row: u32,
  lane: u32,
  firstLane: u32,
  size: u32,
  stats: Stats,
  isWrong: bool,
  isAnyDry: bool,
) -> array<i32, SLOTS> {
  let isSlot = lane < TOP_K;
  var key = keys[0];
  var rest = hand;
  if (isAnyDry) {
    rest = Hand(emptyBest(), 0u, HIGHEST);
    for (var k = 0u; k < TOP_K; k++) {
      rest = replenish(rest, row, lane, size, stats);
      let found = rowMax(rest.best.a.x);
      key = select(key, found, lane == k);
      rest = take(rest, found);
    }
  }
  var order = select(HIGHEST, orderAt(row, expertOf(key), stats), isSlot);
  let coarse = subgroupShuffle(key, firstLane + TOP_K - 1u) & ~MASK;
  loop {
    rest = replenish(rest, row, lane, size, stats);
    let rival = rowMax(rest.best.a.x);
    let isRival = isWrong && rival >= coarse;
    if (!subgroupAny(isRival)) {
      break;
    }
    rest = take(rest, rival);
    // The last of the chosen: the lowest order, and of equals the largest id, which is the smallest inverted one.
    let lastOrder = -1 - rowMax(-1 - order);
    let lastId = rowMax(select(EMPTY, -(key & MASK), isSlot && order == lastOrder));
    let isLast = isSlot && order == lastOrder && -(key & MASK) == lastId;
    let rivalOrder = orderAt(row, expertOf(rival), stats);
    let isReplaced = isRival && isLast && isAhead(rivalOrder, rival, order, key);
    key = select(key, rival, isReplaced);
    order = select(order, rivalOrder, isReplaced);
  }
  var place = 0u;
  for (var k = 0u; k < TOP_K; k++) {
    let otherOrder = subgroupShuffle(order, firstLane + k);
    let otherKey = subgroupShuffle(key, firstLane + k);
    place += select(0u, 1u, isAhead(otherOrder, otherKey, order, key));
  }
  var settled = keys[0];
  for (var k = 0u; k < TOP_K; k++) {
    let otherPlace = subgroupShuffle(place, firstLane + k);
    let otherKey = subgroupShuffle(key, firstLane + k);
    settled = select(settled, otherKey, isWrong && isSlot && otherPlace == lane);
  }
  return array<i32, SLOTS>(settled);
}
