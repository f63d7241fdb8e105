enable subgroups;

// Subgroup operations stand in loops and branches whose conditions come from subgroup reductions and workgroup ids.
// They are uniform in a subgroup, which the compiler cannot prove.
diagnostic(off, subgroup_uniformity);

// Router with subgroups of any size ≥ LANES: LANES neighbouring lanes share a row, so a subgroup takes size / LANES
// rows at once. Each lane sorts its best keys into a short list, and the lists are merged across the lanes
// (lane-network.ts makes the text), until each lane holds the key of its place, the best in the first lane. Rows in
// which keys were too coarse, or a list too short, are few, and settled by a slower way.
//
//     lane        0        1      …   LANES − 1   0        1     …
//     experts     0–3      4–7    …               0–3      4–7   …      + 4 · LANES, …
//     row         base ───────────────────────────base + 1 ────────

// A key that no expert has: under the keys of all numbers, also with an id taken off.
const NONE: i32 = EMPTY | MASK;

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

// Their keys, with ids that count from the first of them.
struct Keys {
  a: vec4i,
  b: vec4i,
  c: vec4i,
  d: vec4i,
  e: vec4i,
  f: vec4i,
  g: vec4i,
  h: vec4i,
}

// What a lane finds out about its experts besides their keys.
struct Share {
  // What decides whether its keys say all: for logits, the bits of all; for fixed point, the greatest magnitude, twice.
  bits: u32,
  // The two greatest orders, where groups are ranked by them.
  first: i32,
  second: i32,
}

fn readQuads(row: u32, lane: u32, start: u32, end: u32) -> Quads {
  var q: Quads;
  q.a = readQuad(row, start + offsetOf(lane, 0u), end);
  if (QUADS > 1u) { q.b = readQuad(row, start + offsetOf(lane, 1u), end); }
  if (QUADS > 2u) { q.c = readQuad(row, start + offsetOf(lane, 2u), end); }
  if (QUADS > 3u) { q.d = readQuad(row, start + offsetOf(lane, 3u), end); }
  if (QUADS > 4u) { q.e = readQuad(row, start + offsetOf(lane, 4u), end); }
  if (QUADS > 5u) { q.f = readQuad(row, start + offsetOf(lane, 5u), end); }
  if (QUADS > 6u) { q.g = readQuad(row, start + offsetOf(lane, 6u), end); }
  if (QUADS > 7u) { q.h = readQuad(row, start + offsetOf(lane, 7u), end); }
  return q;
}

fn addToGroup(share: ptr<function, Share>, orders: vec4i, inside: vec4<bool>) {
  for (var i = 0u; i < 4u; i++) {
    let order = select(LOWEST_ORDER, orders[i], inside[i]);
    (*share).second = max((*share).second, min((*share).first, order));
    (*share).first = max((*share).first, order);
  }
}

// By the two greatest orders of its group.
fn scoreOfGroup(share: Share) -> i32 {
  if (GROUP_TOP2 == 0u) {
    return share.first;
  }
  return orderOf(vec4u(bitcast<u32>(valueOf(share.first) + valueOf(share.second)))).x;
}

// Whether the lane's group is kept, by the orders themselves.
fn isKeptAnew(row: u32, lane: u32, firstLane: u32, stats: Stats) -> bool {
  let end = endOf(lane);
  var share = Share(0u, LOWEST_ORDER, LOWEST_ORDER);
  for (var i = 0u; i < CHUNKS * QUADS; i++) {
    let first = startOf(lane) + i * QUAD_STEP;
    addToGroup(&share, choiceOrders(readQuad(row, first, end), first, end, stats), isBefore(first, end));
  }
  return isGroupKept(lane, firstLane, scoreOfGroup(share));
}

fn keysOfQuad(share: ptr<function, Share>, bits: vec4u, offset: u32, start: u32, end: u32, stats: Stats) -> vec4i {
  let first = start + offset;
  let inside = isBefore(first, end);
  let orders = looseOrders(bits, first, end, stats);
  let own = select(vec4u(0u), bits, inside);
  if (BY_LOGIT != 0u) {
    (*share).bits |= own.x | own.y | own.z | own.w;
  }
  if (IS_FIXED) {
    let twice = own << vec4u(1u);
    (*share).bits = max((*share).bits, max(max(twice.x, twice.y), max(twice.z, twice.w)));
  }
  if (GROUPS > 1u && !IS_FIXED) {
    addToGroup(share, orders, inside);
  }
  return select(vec4i(NONE), keysOf(orders, offset), inside);
}

fn keysOfQuads(share: ptr<function, Share>, q: Quads, lane: u32, start: u32, end: u32, stats: Stats) -> Keys {
  var keys: Keys;
  keys.a = keysOfQuad(share, q.a, offsetOf(lane, 0u), start, end, stats);
  if (QUADS > 1u) { keys.b = keysOfQuad(share, q.b, offsetOf(lane, 1u), start, end, stats); }
  if (QUADS > 2u) { keys.c = keysOfQuad(share, q.c, offsetOf(lane, 2u), start, end, stats); }
  if (QUADS > 3u) { keys.d = keysOfQuad(share, q.d, offsetOf(lane, 3u), start, end, stats); }
  if (QUADS > 4u) { keys.e = keysOfQuad(share, q.e, offsetOf(lane, 4u), start, end, stats); }
  if (QUADS > 5u) { keys.f = keysOfQuad(share, q.f, offsetOf(lane, 5u), start, end, stats); }
  if (QUADS > 6u) { keys.g = keysOfQuad(share, q.g, offsetOf(lane, 6u), start, end, stats); }
  if (QUADS > 7u) { keys.h = keysOfQuad(share, q.h, offsetOf(lane, 7u), start, end, stats); }
  return keys;
}

// The list of one chunk.
fn listOf(share: ptr<function, Share>, row: u32, lane: u32, start: u32, end: u32, stats: Stats) -> List {
  let keys = keysOfQuads(share, readQuads(row, lane, start, end), lane, start, end, stats);
  return moveIds(sortKeys(keys), i32(min(start, ID_MASK)));
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
  var total = Sum(0);
  for (var first = 4u * lane; first < NUM_EXPERTS; first += 4u * LANES) {
    let logit = boundedOf(readQuad(row, first, NUM_EXPERTS));
    let terms = select(vec4<Sum>(Sum(0)), exponentialsOf(logit - top), isBefore(first, NUM_EXPERTS));
    total += terms.x + terms.y + terms.z + terms.w;
  }
  return Stats(top, scaleOf(sumOver(LANES, total)));
}

// Lanes behind the last that has a place repeat what the others hold.
fn placeOf(lane: u32) -> u32 {
  return lane % PLACE_LANES;
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
  let place = placeOf(lane);
  let rowsAtOnce = subgroupSize / LANES;
  let subgroup = subgroupBroadcastFirst(thread) / subgroupSize;
  var base = group.x * (THREADS / LANES) + subgroup * rowsAtOnce;
  // Read early, needed late: reads beyond the buffer are clamped, and writes are guarded.
  let rows = numRows();
  loop {
    let row = base + subgroupLane / LANES;
    enterRow(row);
    var stats = statsOf(row, lane);
    let end = endOf(lane);
    var share = Share(0u, LOWEST_ORDER, LOWEST_ORDER);
    var list = listOf(&share, row, lane, startOf(lane), end, stats);
    for (var chunk = 1u; chunk < CHUNKS; chunk++) {
      let start = startOf(lane) + chunk * QUADS * QUAD_STEP;
      list = mergeLists(list, listOf(&share, row, lane, start, end, stats));
    }
    var isKept = true;
    var isOdd = IS_FIXED && (firstOf(list) >= 0 || share.bits >= 0xff000000u);
    if (GROUPS > 1u) {
      if (IS_FIXED) {
        // Sums of two in fixed point are within the margin.
        var score = (firstOf(list) & ~MASK) >> 9u;
        var least = firstOf(list);
        if (GROUP_TOP2 != 0u) {
          score += (secondOf(list) & ~MASK) >> 9u;
          least = secondOf(list);
        }
        isOdd = isOdd || (lane < GROUPS && least <= LOWEST_KEY);
        isKept = isGroupKept(lane, firstLane, score);
      } else {
        isKept = isGroupKept(lane, firstLane, scoreOfGroup(share));
      }
      list = keepIf(list, isKept);
    }
    let ranked = rankRow(list, lane);

    // The order is certain where no two neighbours among the K best and the next begin alike, and no key that was left
    // out could be of them.
    var chosen = ranked.keys;
    let kth = subgroupShuffle(chosen[(TOP_K - 1u) % SLOTS], firstLane + (TOP_K - 1u) / SLOTS);
    let coarse = kth & ~MASK;
    var isClose = max(ranked.dropped, list.dropped) >= coarse;
    var previous = subgroupShuffle(chosen[SLOTS - 1u], max(subgroupLane, 1u) - 1u);
    for (var slot = 0u; slot < SLOTS; slot++) {
      let at = place * SLOTS + slot;
      isClose = isClose | ((((chosen[slot] ^ previous) & ~MASK) == 0) & (at > 0u) & (at <= TOP_K));
      previous = chosen[slot];
    }
    isOdd = isOdd | (kth <= LOWEST_KEY);
    if (subgroupAny(isClose | isOdd)) {
      let isCut = (BY_LOGIT == 0u) | rowAny(isKept & ((share.bits & ID_MASK) != 0u));
      let isDry = (LIST < WIDTH) & rowAny(list.dropped >= coarse);
      var isAnew = rowAny(isOdd);
      let isWrong = isAnew | isDry | (isCut & rowAny(isClose));
      if (subgroupAny(isWrong)) {
        var settled = settle(ranked, list, kth, row, lane, firstLane, isKept, stats, isWrong, &isAnew);
        if (subgroupAny(isAnew)) {
          let anew = settleAnew(row, lane, isKeptAnew(row, lane, firstLane, stats), stats);
          for (var slot = 0u; slot < SLOTS; slot++) {
            settled[slot] = select(settled[slot], anew[slot], isAnew);
          }
        }
        for (var slot = 0u; slot < SLOTS; slot++) {
          chosen[slot] = select(chosen[slot], settled[slot], isWrong);
        }
      }
    }

    if (WEIGHS != 0u && NEEDS_SUM == 0u) {
      stats.max = subgroupShuffle(boundedOf(vec4u(readOne(row, expertOf(chosen[0])))).x, firstLane);
    }
    var total = Sum(0);
    var own: array<Sum, SLOTS>;
    for (var slot = 0u; slot < SLOTS; slot++) {
      let weight = weightOf(row, expertOf(chosen[slot]), stats);
      own[slot] = weight;
      total += select(Sum(0), weight, place * SLOTS + slot < TOP_K);
    }
    total = sumOver(PLACE_LANES, total);
    if (row < rows) {
      for (var slot = 0u; slot < SLOTS; slot++) {
        let k = lane * SLOTS + slot;
        if (k < TOP_K) {
          putChoice(row, k, expertOf(chosen[slot]), own[slot], total);
        }
      }
    }
    base += groups.x * (THREADS / LANES);
    if (base >= rows) {
      break;
    }
  }
}
