enable subgroups;

// Subgroup operations stand in loops and branches whose conditions come from subgroup reductions and workgroup ids. They are uniform in a
// subgroup, which the compiler cannot prove.
diagnostic(off, subgroup_uniformity);

// Router with subgroups of any size ≥ LANES: LANES neighbouring lanes share a row, so a subgroup takes size / LANES rows at once. Each lane
// sorts its best keys into a short list; K rounds of one integer max over the row take the heads. What a lane had to let go, and what is left at
// the end, is below the K-th key, or the row is selected anew.
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

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) subgroupLane: u32,
  @builtin(subgroup_size) size: u32,
) {
  let lane = subgroupLane % LANES;
  let firstLane = subgroupLane - lane;
  let numTokens = params[0];
  let rowsAtOnce = size / LANES;
  let stride = groups.x * (THREADS / LANES);
  let subgroup = subgroupBroadcastFirst(thread) / size;
  for (var base = group.x * (THREADS / LANES) + subgroup * rowsAtOnce; base < numTokens; base += stride) {
    // Lanes without a row of their own repeat the last one, and write nothing.
    let ownRow = base + subgroupLane / LANES;
    let row = min(ownRow, numTokens - 1u);
    var stats = statsOf(row, lane);

    let end = endOf(lane);
    var selection = emptySelection();
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      let first = startOf(lane) + chunk * QUADS * QUAD_STEP;
      selection = offerQuads(selection, readQuads(row, first, end), first, end, stats);
    }
    let isKept = isGroupKept(lane, firstLane, selection.first, selection.second);
    if (!isKept) {
      selection = emptySelection();
    }
    var best = selection.best;

    var chosen: array<i32, SLOTS>;
    var isClose = false;
    var found = EMPTY;
    for (var k = 0u; k < TOP_K; k++) {
      let previous = found;
      found = rowMax(best.a.x);
      isClose = isClose || ((found ^ previous) & ~MASK) == 0;
      if (lane == k % LANES) {
        chosen[k / LANES] = found;
      }
      if (best.a.x == found) {
        best = pop(best);
      }
    }
    let next = rowMax(max(best.a.x, best.rejected));
    isClose = isClose || next >= (found & ~MASK);

    if (subgroupAny(isClose)) {
      let cut = selection.cut.x | selection.cut.y | selection.cut.z | selection.cut.w;
      let isLossless = rowMax(cut) == 0;
      let isWrong = isClose && !(isLossless && next < found);
      if (subgroupAny(isWrong)) {
        var lastOrder = HIGHEST;
        var lastExpert = -1;
        for (var k = 0u; k < TOP_K; k++) {
          var bestOrder = EMPTY;
          var bestExpert = MASK;
          for (var i = 0u; i < CHUNKS * QUADS; i++) {
            let quad = startOf(lane) + i * QUAD_STEP;
            let orders = choiceOrders(readQuad(row, quad, end), quad, end, stats);
            let inside = isBefore(quad, end);
            for (var j = 0u; j < 4u; j++) {
              let expert = i32(quad + j);
              let isBehind = orders[j] < lastOrder || (orders[j] == lastOrder && expert > lastExpert);
              if (isKept && inside[j] && isBehind && orders[j] > bestOrder) {
                bestOrder = orders[j];
                bestExpert = expert;
              }
            }
          }
          lastOrder = rowMax(bestOrder);
          lastExpert = MASK - rowMax(select(EMPTY, MASK - bestExpert, bestOrder == lastOrder));
          if (isWrong && lane == k % LANES) {
            chosen[k / LANES] = MASK - lastExpert;
          }
        }
      }
    }

    if (NEEDS_SUM == 0u) {
      stats.max = subgroupShuffle(boundedOf(vec4u(readOne(row, expertOf(chosen[0])))).x, firstLane);
    }
    var total = 0.0;
    var own: array<f32, SLOTS>;
    for (var slot = 0u; slot < SLOTS; slot++) {
      if (slot * LANES + lane < TOP_K) {
        own[slot] = weightOf(row, expertOf(chosen[slot]), stats);
        total += own[slot];
      }
    }
    let factor = factorOf(rowSum(total));
    if (ownRow < numTokens) {
      for (var slot = 0u; slot < SLOTS; slot++) {
        let k = slot * LANES + lane;
        if (k < TOP_K) {
          ids[row * TOP_K + k] = expertOf(chosen[slot]);
          weights[row * TOP_K + k] = own[slot] * factor;
        }
      }
    }
  }
}
