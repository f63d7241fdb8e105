// Settles rows where keys are too coarse, each place having a lane of its own. Experts that were not chosen, but whose
// keys begin like the K-th's or are greater, are all that may belong there in place of another: each is compared with
// the last of the chosen by whole orders. Then the chosen find their places by counting those ahead.

// Rounds that take as long as selecting anew, about.
const MAX_RIVALS: u32 = 2u * TOP_K;

fn isAhead(order: i32, key: i32, otherOrder: i32, otherKey: i32) -> bool {
  return order > otherOrder || (order == otherOrder && (key & MASK) > (otherKey & MASK));
}

// The best key of the lane's experts under `bound`.
fn bestBelow(bound: i32, row: u32, lane: u32, stats: Stats) -> i32 {
  let end = endOf(lane);
  var best = vec4i(EMPTY);
  for (var i = 0u; i < CHUNKS * QUADS; i++) {
    let first = startOf(lane) + i * QUAD_STEP;
    let keys = keysOf(looseOrders(readQuad(row, first, end), first, end, stats), first);
    best = max(best, select(vec4i(EMPTY), keys, isBefore(first, end) & (keys < vec4i(bound))));
  }
  return max(max(best.x, best.y), max(best.z, best.w));
}

// `isAnew`: rows that are selected anew; those with many rivals join them.
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
  let isSlot = lane < TOP_K;
  let coarse = kth & ~MASK;
  var key = ranked.keys[0];
  var order = select(HIGHEST, orderAt(row, expertOf(key), stats), isSlot);
  let isNextAlike = placeOf(lane) == TOP_K && key >= coarse;
  if (subgroupAny(isWrong && (isNextAlike || max(ranked.dropped, list.dropped) >= coarse))) {
    // All of the lane's experts above it are chosen, and none below.
    var bound = max(kth, lastOf(list));
    let isAnyDry = subgroupAny(isWrong && list.dropped >= coarse);
    for (var round = 0u; ; round++) {
      var own = nextBelow(list, bound);
      if (isAnyDry) {
        own = select(EMPTY, bestBelow(bound, row, lane, stats), isKept);
      }
      let rival = rowMax(own);
      let isRival = isWrong && !*isAnew && rival >= coarse;
      if (!subgroupAny(isRival)) {
        break;
      }
      if (round == MAX_RIVALS) {
        *isAnew = *isAnew || isRival;
        break;
      }
      bound = select(bound, rival, own == rival);
      // The last of the chosen: the lowest order, and of equals the largest id, which is the smallest inverted one.
      let lastOrder = -1 - rowMax(-1 - order);
      let lastId = rowMax(select(EMPTY, -(key & MASK), isSlot && order == lastOrder));
      let isLast = isSlot && order == lastOrder && -(key & MASK) == lastId;
      let rivalOrder = orderAt(row, expertOf(rival), stats);
      // An order calculated twice may come out differently.
      let isKnown = rowAny(isSlot && expertOf(key) == expertOf(rival));
      let isReplaced = isRival && !isKnown && isLast && isAhead(rivalOrder, rival, order, key);
      key = select(key, rival, isReplaced);
      order = select(order, rivalOrder, isReplaced);
    }
  }
  var place = 0u;
  for (var k = 0u; k < TOP_K; k++) {
    let otherOrder = subgroupShuffle(order, firstLane + k);
    let otherKey = subgroupShuffle(key, firstLane + k);
    place += select(0u, 1u, isAhead(otherOrder, otherKey, order, key));
  }
  var settled = key;
  for (var k = 0u; k < TOP_K; k++) {
    let otherPlace = subgroupShuffle(place, firstLane + k);
    let otherKey = subgroupShuffle(key, firstLane + k);
    settled = select(settled, otherKey, otherPlace == placeOf(lane));
  }
  return array<i32, SLOTS>(settled);
}
