// Settles a row where a lane holds several of the chosen: selects them anew by whole orders, in K passes over the row, each finding the best
// one behind the last.

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
  let end = endOf(lane);
  var settled = keys;
  var lastOrder = HIGHEST;
  var lastExpert = -1;
  for (var k = 0u; k < TOP_K; k++) {
    var bestOrder = EMPTY;
    var bestExpert = MASK;
    for (var i = 0u; i < CHUNKS * QUADS; i++) {
      let first = startOf(lane) + i * QUAD_STEP;
      let orders = choiceOrders(readQuad(row, first, end), first, end, stats);
      let inside = isBefore(first, end);
      for (var j = 0u; j < 4u; j++) {
        let expert = i32(first + j);
        let isBehind = orders[j] < lastOrder || (orders[j] == lastOrder && expert > lastExpert);
        let isBetter = size > 0u && inside[j] && isBehind && orders[j] > bestOrder;
        bestOrder = select(bestOrder, orders[j], isBetter);
        bestExpert = select(bestExpert, expert, isBetter);
      }
    }
    lastOrder = rowMax(bestOrder);
    lastExpert = MASK - rowMax(select(EMPTY, MASK - bestExpert, bestOrder == lastOrder));
    let isOwn = isWrong && lane == k % LANES;
    settled[k / LANES] = select(settled[k / LANES], MASK - lastExpert, isOwn);
  }
  return settled;
}
