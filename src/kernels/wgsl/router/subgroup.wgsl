enable subgroups;

// Subgroup operations stand in loops and branches whose conditions come from subgroup reductions and workgroup ids. They are uniform in a
// subgroup, which the compiler cannot prove.
diagnostic(off, subgroup_uniformity);

// Router with subgroups of any size ≥ LANES: LANES neighbouring lanes share a row, so a subgroup takes size / LANES rows at once. Each lane
// sorts its best keys into a short list; K rounds of one integer max over the row take the heads, and one round more shows the best key left
// over. Rows in which keys were too coarse, or a lane gave its whole list away, are few, and settled by a slower way.
//
//     lane        0        1      …   LANES − 1   0        1     …
//     experts     0–3      4–7    …               0–3      4–7   …      + 4 · LANES, …
//     row         base ───────────────────────────base + 1 ────────

// Bits of the quads of one lane: eight loads in flight.
struct Quads {
  a: vec4u,
  b: vec4u,
  c: vec4u,
  d: vec4u,
  e: vec4u,
  f: vec4u,
  g: vec4u,
  h: vec4u,
}

struct Selection {
  best: Best,
  // Bits cut off from orders.
  cut: vec4i,
  // The two greatest orders, where groups are ranked by them.
  first: i32,
  second: i32,
}

fn emptySelection() -> Selection {
  return Selection(emptyBest(), vec4i(0), LOWEST_ORDER, LOWEST_ORDER);
}

fn readQuads(row: u32, first: u32, end: u32) -> Quads {
  var q: Quads;
  q.a = readQuad(row, first, end);
  if (QUADS > 1u) { q.b = readQuad(row, first + QUAD_STEP, end); }
  if (QUADS > 2u) { q.c = readQuad(row, first + 2u * QUAD_STEP, end); }
  if (QUADS > 3u) { q.d = readQuad(row, first + 3u * QUAD_STEP, end); }
  if (QUADS > 4u) { q.e = readQuad(row, first + 4u * QUAD_STEP, end); }
  if (QUADS > 5u) { q.f = readQuad(row, first + 5u * QUAD_STEP, end); }
  if (QUADS > 6u) { q.g = readQuad(row, first + 6u * QUAD_STEP, end); }
  if (QUADS > 7u) { q.h = readQuad(row, first + 7u * QUAD_STEP, end); }
  return q;
}

fn offer(selection: Selection, bits: vec4u, first: u32, end: u32, stats: Stats) -> Selection {
  var s = selection;
  let orders = choiceOrders(bits, first, end, stats);
  let inside = isBefore(first, end);
  s.best = putQuad(s.best, select(vec4i(EMPTY), keysOf(orders, first), inside));
  s.cut |= select(vec4i(0), ~orders & vec4i(MASK), inside);
  if (GROUPS > 1u) {
    for (var i = 0u; i < 4u; i++) {
      let order = select(LOWEST_ORDER, orders[i], inside[i]);
      s.second = max(s.second, min(s.first, order));
      s.first = max(s.first, order);
    }
  }
  return s;
}

fn offerQuads(selection: Selection, q: Quads, first: u32, end: u32, stats: Stats) -> Selection {
  var s = offer(selection, q.a, first, end, stats);
  if (QUADS > 1u) { s = offer(s, q.b, first + QUAD_STEP, end, stats); }
  if (QUADS > 2u) { s = offer(s, q.c, first + 2u * QUAD_STEP, end, stats); }
  if (QUADS > 3u) { s = offer(s, q.d, first + 3u * QUAD_STEP, end, stats); }
  if (QUADS > 4u) { s = offer(s, q.e, first + 4u * QUAD_STEP, end, stats); }
  if (QUADS > 5u) { s = offer(s, q.f, first + 5u * QUAD_STEP, end, stats); }
  if (QUADS > 6u) { s = offer(s, q.g, first + 6u * QUAD_STEP, end, stats); }
  if (QUADS > 7u) { s = offer(s, q.h, first + 7u * QUAD_STEP, end, stats); }
  return s;
}

// The softmax's max and sum over the whole row, whatever share of it the lane selects from.
fn statsOf(row: u32, lane: u32) -> Stats {
  if (NEEDS_SUM == 0u) {
    return Stats(0.0, 1.0);
  }
  var top = -1e38;
  for (var first = 4u * lane; first < NUM_EXPERTS; first += 4u * LANES) {
    let logit = select(vec4f(-1e38), boundedOf(readQuad(row, first, NUM_EXPERTS)), isBefore(first, NUM_EXPERTS));
    top = max(top, max(max(logit.x, logit.y), max(logit.z, logit.w)));
  }
  top = rowMaxF32(top);
  var total = 0.0;
  for (var first = 4u * lane; first < NUM_EXPERTS; first += 4u * LANES) {
    let logit = boundedOf(readQuad(row, first, NUM_EXPERTS));
    total += dot(select(vec4f(0.0), exp(logit - top), isBefore(first, NUM_EXPERTS)), vec4f(1.0));
  }
  return Stats(top, 1.0 / rowSum(total));
}

// The next list of a lane: its best keys below the last that it has given.
fn refill(row: u32, lane: u32, hand: Hand, stats: Stats) -> Best {
  let end = endOf(lane);
  var best = emptyBest();
  for (var i = 0u; i < CHUNKS * QUADS; i++) {
    let first = startOf(lane) + i * QUAD_STEP;
    let keys = keysOf(choiceOrders(readQuad(row, first, end), first, end, stats), first);
    best = putQuad(best, select(vec4i(EMPTY), keys, isBefore(first, end) & ((keys < vec4i(hand.last)) | vec4<bool>(hand.given == 0u))));
  }
  return best;
}

// What a lane can give: its list, how many keys it has given, and the last of them.
struct Hand {
  best: Best,
  given: u32,
  last: i32,
}

// Whether the lane of `size` experts has some left that its list does not show.
fn isEmptyBefore(hand: Hand, size: u32) -> bool {
  return (hand.best.a.x == EMPTY) & (hand.given < size);
}

// A hand that shows a key, if the lane has one left.
fn replenish(hand: Hand, row: u32, lane: u32, size: u32, stats: Stats) -> Hand {
  var next = hand;
  let isDry = isEmptyBefore(hand, size);
  if (subgroupAny(isDry)) {
    let other = refill(row, lane, hand, stats);
    next.best.a = select(hand.best.a, other.a, isDry);
    next.best.b = select(hand.best.b, other.b, isDry);
    next.best.c = select(hand.best.c, other.c, isDry);
    next.best.d = select(hand.best.d, other.d, isDry);
    next.best.e = select(hand.best.e, other.e, isDry);
    next.best.f = select(hand.best.f, other.f, isDry);
    next.best.g = select(hand.best.g, other.g, isDry);
    next.best.h = select(hand.best.h, other.h, isDry);
  }
  return next;
}

fn take(hand: Hand, key: i32) -> Hand {
  let isOwn = hand.best.a.x == key;
  return Hand(pop(hand.best, isOwn), hand.given + select(0u, 1u, isOwn), select(hand.last, key, isOwn));
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) subgroupLane: u32,
  @builtin(subgroup_size) subgroupSize: u32,
) {
  let lane = subgroupLane % LANES;
  let firstLane = subgroupLane - lane;
  let rowsAtOnce = subgroupSize / LANES;
  let subgroup = subgroupBroadcastFirst(thread) / subgroupSize;
  var base = group.x * (THREADS / LANES) + subgroup * rowsAtOnce;
  // Read early, needed late: reads beyond the buffer are clamped, and writes are guarded.
  let numTokens = params[0];
  loop {
    let row = base + subgroupLane / LANES;
    var stats = statsOf(row, lane);
    let end = endOf(lane);
    var selection = emptySelection();
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      let first = startOf(lane) + chunk * QUADS * QUAD_STEP;
      selection = offerQuads(selection, readQuads(row, first, end), first, end, stats);
    }
    let isKept = isGroupKept(lane, firstLane, selection.first, selection.second);
    let size = select(0u, sizeOf(lane), isKept);
    var hand = Hand(selection.best, 0u, HIGHEST);
    if (GROUPS > 1u) {
      hand.best = keepIf(selection.best, isKept);
    }

    var chosen: array<i32, SLOTS>;
    var isClose = false;
    var found = EMPTY;
    for (var k = 0u; k < TOP_K; k++) {
      let previous = found;
      found = rowMaxAtOnce(hand.best.a.x);
      isClose = isClose | (((found ^ previous) & ~MASK) == 0);
      if (SLOTS == 1u) {
        chosen[0] = select(chosen[0], found, lane == k);
      } else {
        chosen[k / LANES] = select(chosen[k / LANES], found, lane == k % LANES);
      }
      hand = take(hand, found);
    }
    let next = rowMaxAtOnce(hand.best.a.x);
    isClose = isClose | (((found ^ next) & ~MASK) == 0);
    // Where a list cannot run dry, the compiler sees it.
    let isDry = (CHUNKS * QUADS * 4u > LIST) & isEmptyBefore(hand, size);

    if (subgroupAny(isClose | isDry)) {
      let cut = selection.cut.x | selection.cut.y | selection.cut.z | selection.cut.w;
      let isCoarse = isClose & (rowMax(select(0, cut, isKept)) != 0);
      let isWrong = isCoarse | (rowMax(select(0, 1, isDry)) != 0);
      if (subgroupAny(isWrong)) {
        chosen = settle(chosen, hand, row, lane, firstLane, size, stats, isWrong, subgroupAny(isDry));
      }
    }

    if (NEEDS_SUM == 0u) {
      stats.max = subgroupShuffle(boundedOf(vec4u(readOne(row, expertOf(chosen[0])))).x, firstLane);
    }
    var total = 0.0;
    var own: array<f32, SLOTS>;
    for (var slot = 0u; slot < SLOTS; slot++) {
      let weight = weightOf(row, expertOf(chosen[slot]), stats);
      own[slot] = weight;
      total += select(0.0, weight, slot * LANES + lane < TOP_K);
    }
    total = rowSum(total);
    if (row < numTokens) {
      for (var slot = 0u; slot < SLOTS; slot++) {
        let k = slot * LANES + lane;
        if (k < TOP_K) {
          ids[row * TOP_K + k] = expertOf(chosen[slot]);
          weights[row * TOP_K + k] = finalWeight(own[slot], total);
        }
      }
    }
    base += groups.x * (THREADS / LANES);
    if (base >= numTokens) {
      break;
    }
  }
}
