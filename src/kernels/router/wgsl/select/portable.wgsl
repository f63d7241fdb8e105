// Router without subgroups, for any shape: an invocation a row. Keys go through a sorted list in registers; see
// common.wgsl for what makes a row be selected anew.

fn statsOf(row: u32) -> Stats {
  if (NEEDS_SUM == 0u) {
    return Stats(0.0, 1.0);
  }
  var top = -1e38;
  for (var first = 0u; first < NUM_EXPERTS; first += 4u) {
    let logit = select(vec4f(-1e38), boundedOf(readQuad(row, first, NUM_EXPERTS)), isBefore(first, NUM_EXPERTS));
    top = max(top, max(max(logit.x, logit.y), max(logit.z, logit.w)));
  }
  var total = Sum(0);
  for (var first = 0u; first < NUM_EXPERTS; first += 4u) {
    let logit = boundedOf(readQuad(row, first, NUM_EXPERTS));
    let terms = select(vec4<Sum>(Sum(0)), exponentialsOf(logit - top), isBefore(first, NUM_EXPERTS));
    total += terms.x + terms.y + terms.z + terms.w;
  }
  return Stats(top, scaleOf(total));
}

fn scoreOfGroup(row: u32, group: u32, stats: Stats) -> i32 {
  let end = (group + 1u) * GROUP_SIZE;
  var first = LOWEST_ORDER;
  var second = LOWEST_ORDER;
  for (var expert = group * GROUP_SIZE; expert < end; expert += 4u) {
    let orders = choiceOrders(readQuad(row, expert, end), expert, end, stats);
    let inside = isBefore(expert, end);
    for (var i = 0u; i < 4u; i++) {
      let order = select(LOWEST_ORDER, orders[i], inside[i]);
      second = max(second, min(first, order));
      first = max(first, order);
    }
  }
  if (GROUP_TOP2 == 0u) {
    return first;
  }
  return orderOf(vec4u(bitcast<u32>(valueOf(first) + valueOf(second)))).x;
}

// A bit for each group that is kept.
fn keptGroups(row: u32, stats: Stats) -> u32 {
  if (GROUPS == KEPT_GROUPS) {
    return 0xffffffffu;
  }
  var scores: array<i32, GROUPS>;
  for (var group = 0u; group < GROUPS; group++) {
    scores[group] = scoreOfGroup(row, group, stats);
  }
  var kept = 0u;
  for (var group = 0u; group < GROUPS; group++) {
    var rank = 0u;
    for (var other = 0u; other < GROUPS; other++) {
      let isAhead = scores[other] > scores[group] || (scores[other] == scores[group] && other < group);
      rank += select(0u, 1u, isAhead);
    }
    kept |= select(0u, 1u << group, rank < KEPT_GROUPS);
  }
  return kept;
}

fn isKept(kept: u32, first: u32, end: u32) -> vec4<bool> {
  let groups = min((vec4u(first) + vec4u(0u, 1u, 2u, 3u)) / GROUP_SIZE, vec4u(31u));
  return isBefore(first, end) & (((vec4u(kept) >> groups) & vec4u(1u)) == vec4u(1u));
}

fn lastOf(best: Best) -> i32 {
  if (LIST == 4u) {
    return best.a.w;
  }
  if (LIST == 8u) {
    return best.b.w;
  }
  return select(best.d.w, best.h.w, LIST > 16u);
}

fn keysInOrder(best: Best) -> array<i32, 33> {
  var keys: array<i32, 33>;
  let rows = array<vec4i, 8>(best.a, best.b, best.c, best.d, best.e, best.f, best.g, best.h);
  for (var i = 0u; i < LIST; i++) {
    keys[i] = rows[i >> 2u][i & 3u];
  }
  return keys;
}

// The experts in order by whole orders: K passes over the row, each finding the best one behind the last.
fn selectAnew(row: u32, stats: Stats, kept: u32) -> array<u32, TOP_K> {
  var chosen: array<u32, TOP_K>;
  var lastOrder = HIGHEST;
  var lastExpert = -1;
  for (var k = 0u; k < TOP_K; k++) {
    var bestOrder = EMPTY;
    var bestExpert = 0;
    for (var first = 0u; first < NUM_EXPERTS; first += 4u) {
      let orders = choiceOrders(readQuad(row, first, NUM_EXPERTS), first, NUM_EXPERTS, stats);
      let inside = isKept(kept, first, NUM_EXPERTS);
      for (var i = 0u; i < 4u; i++) {
        let expert = i32(first + i);
        let isBehind = orders[i] < lastOrder || (orders[i] == lastOrder && expert > lastExpert);
        if (inside[i] && isBehind && orders[i] > bestOrder) {
          bestOrder = orders[i];
          bestExpert = expert;
        }
      }
    }
    chosen[k] = u32(bestExpert);
    lastOrder = bestOrder;
    lastExpert = bestExpert;
  }
  return chosen;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let rows = numRows();
  for (var row = id.x; row < rows; row += groups.x * THREADS) {
    enterRow(row);
    var stats = statsOf(row);
    let kept = keptGroups(row, stats);
    var best = emptyBest();
    // The best key that is not in the list.
    var rejected = EMPTY;
    var cut = vec4i(0);
    for (var first = 0u; first < NUM_EXPERTS; first += 4u) {
      let orders = choiceOrders(readQuad(row, first, NUM_EXPERTS), first, NUM_EXPERTS, stats);
      let inside = isKept(kept, first, NUM_EXPERTS);
      cut |= select(vec4i(0), ~orders & vec4i(MASK), inside);
      let keys = select(vec4i(EMPTY), keysOf(orders, first), inside);
      for (var i = 0u; i < 4u; i++) {
        rejected = max(rejected, min(keys[i], lastOf(best)));
        best = put(best, keys[i]);
      }
    }
    var keys = keysInOrder(best);
    keys[LIST] = rejected;
    var isClose = false;
    var chosen: array<u32, TOP_K>;
    for (var k = 0u; k < TOP_K; k++) {
      chosen[k] = expertOf(keys[k]);
      isClose = isClose || ((keys[k] ^ keys[k + 1u]) & ~MASK) == 0;
    }
    if (isClose && any(cut != vec4i(0))) {
      chosen = selectAnew(row, stats, kept);
    }

    if (WEIGHS != 0u && NEEDS_SUM == 0u) {
      stats.max = boundedOf(vec4u(readOne(row, chosen[0]))).x;
    }
    var own: array<Sum, TOP_K>;
    var total = Sum(0);
    for (var k = 0u; k < TOP_K; k++) {
      own[k] = weightOf(row, chosen[k], stats);
      total += own[k];
    }
    for (var k = 0u; k < TOP_K; k++) {
      putChoice(row, k, chosen[k], own[k], total);
    }
  }
}
