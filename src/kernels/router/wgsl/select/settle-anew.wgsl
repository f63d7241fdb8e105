// Selects a row anew by whole orders, in K passes over it, each finding the best one behind the last.

fn settleAnew(row: u32, lane: u32, isKept: bool, stats: Stats) -> array<i32, SLOTS> {
  let end = endOf(lane);
  var settled: array<i32, SLOTS>;
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
        let isBetter = isKept && inside[j] && isBehind && orders[j] > bestOrder;
        bestOrder = select(bestOrder, orders[j], isBetter);
        bestExpert = select(bestExpert, expert, isBetter);
      }
    }
    lastOrder = rowMax(bestOrder);
    lastExpert = MASK - rowMax(select(EMPTY, MASK - bestExpert, bestOrder == lastOrder));
    if (placeOf(lane) == k / SLOTS) {
      settled[k % SLOTS] = MASK - lastExpert;
    }
  }
  return settled;
}
