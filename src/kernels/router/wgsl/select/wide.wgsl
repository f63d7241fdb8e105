// Router without subgroups for wide rows: a workgroup a row, whose K-th choice is found by counting, four bits of the
// order at a time.
//
//     digit   counts of the orders that start like the K-th
//     7 … 0   [16]
//
// The digit of the K-th is where the counts, from the top, reach K; with the eighth digit its whole order is known.
// Then come all experts above it, and of its equals those with the smallest ids; each finds its place by counting the
// experts ahead of it.

// The orders, as unsigned numbers; of groups that were not kept, 0, which no order is.
var<workgroup> row_orders: array<u32, NUM_EXPERTS>;
var<workgroup> counts: array<atomic<u32>, 16>;
var<workgroup> group_scores: array<i32, GROUPS>;
var<workgroup> num_winners: atomic<u32>;
var<workgroup> winners: array<u32, TOP_K>;
var<workgroup> sorted: array<u32, TOP_K>;
var<workgroup> row_weights: array<Sum, TOP_K>;
var<workgroup> partial: array<f32, THREADS>;
var<workgroup> terms: array<Sum, THREADS>;

const QUAD_COUNT: u32 = (GROUP_SIZE + 3u) / 4u;

fn ordinal(order: i32) -> u32 {
  return bitcast<u32>(order) ^ 0x80000000u;
}

fn statsOf(row: u32, thread: u32) -> Stats {
  if (NEEDS_SUM == 0u) {
    return Stats(0.0, 1.0);
  }
  var top = -1e38;
  for (var expert = thread; expert < NUM_EXPERTS; expert += THREADS) {
    top = max(top, boundedOf(vec4u(readOne(row, expert))).x);
  }
  partial[thread] = top;
  workgroupBarrier();
  for (var i = 0u; i < THREADS; i++) {
    top = max(top, partial[i]);
  }
  workgroupBarrier();
  var total = Sum(0);
  for (var expert = thread; expert < NUM_EXPERTS; expert += THREADS) {
    total += exponentialsOf(boundedOf(vec4u(readOne(row, expert))) - top).x;
  }
  terms[thread] = total;
  workgroupBarrier();
  total = Sum(0);
  for (var i = 0u; i < THREADS; i++) {
    total += terms[i];
  }
  return Stats(top, scaleOf(total));
}

fn scoreOfGroup(group: u32) -> i32 {
  var first = ordinal(LOWEST_ORDER);
  var second = first;
  for (var expert = group * GROUP_SIZE; expert < (group + 1u) * GROUP_SIZE; expert++) {
    let order = row_orders[expert];
    second = max(second, min(first, order));
    first = max(first, order);
  }
  let best = bitcast<i32>(first ^ 0x80000000u);
  if (GROUP_TOP2 == 0u) {
    return best;
  }
  let sum = valueOf(best) + valueOf(bitcast<i32>(second ^ 0x80000000u));
  return orderOf(vec4u(bitcast<u32>(sum))).x;
}

fn dropGroups(thread: u32) {
  if (GROUPS == KEPT_GROUPS) {
    return;
  }
  for (var group = thread; group < GROUPS; group += THREADS) {
    group_scores[group] = scoreOfGroup(group);
  }
  workgroupBarrier();
  for (var group = thread; group < GROUPS; group += THREADS) {
    let score = group_scores[group];
    var rank = 0u;
    for (var other = 0u; other < GROUPS; other++) {
      rank += select(0u, 1u, group_scores[other] > score || (group_scores[other] == score && other < group));
    }
    if (rank >= KEPT_GROUPS) {
      for (var expert = group * GROUP_SIZE; expert < (group + 1u) * GROUP_SIZE; expert++) {
        row_orders[expert] = 0u;
      }
    }
  }
  workgroupBarrier();
}

// The K-th greatest order and the number of orders above it.
fn findThreshold(thread: u32) -> vec2u {
  var prefix = 0u;
  var above = 0u;
  for (var digit = 0u; digit < 8u; digit++) {
    let shift = 28u - 4u * digit;
    if (thread < 16u) {
      atomicStore(&counts[thread], 0u);
    }
    workgroupBarrier();
    for (var expert = thread; expert < NUM_EXPERTS; expert += THREADS) {
      let order = row_orders[expert];
      // In two shifts: one by 32 bits is not defined.
      if (((order ^ prefix) >> shift) >> 4u == 0u) {
        atomicAdd(&counts[(order >> shift) & 15u], 1u);
      }
    }
    workgroupBarrier();
    var value = 15u;
    var here = atomicLoad(&counts[15u]);
    while (value > 0u && above + here < TOP_K) {
      above += here;
      value -= 1u;
      here = atomicLoad(&counts[value]);
    }
    prefix |= value << shift;
    workgroupBarrier();
  }
  return vec2u(prefix, above);
}

fn isAmongEquals(expert: u32, order: u32, places: u32) -> bool {
  var ahead = 0u;
  for (var other = 0u; other < expert && ahead < places; other++) {
    ahead += select(0u, 1u, row_orders[other] == order);
  }
  return ahead < places;
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let rows = numRows();
  for (var row = group.x; row < rows; row += groups.x) {
    enterRow(row);
    var stats = statsOf(row, thread);
    for (var quad = thread; quad < GROUPS * QUAD_COUNT; quad += THREADS) {
      let first = (quad / QUAD_COUNT) * GROUP_SIZE + (quad % QUAD_COUNT) * 4u;
      let end = (quad / QUAD_COUNT + 1u) * GROUP_SIZE;
      let orders = choiceOrders(readQuad(row, first, end), first, end, stats);
      let inside = isBefore(first, end);
      for (var i = 0u; i < 4u; i++) {
        if (inside[i]) {
          row_orders[first + i] = ordinal(orders[i]);
        }
      }
    }
    if (thread == 0u) {
      atomicStore(&num_winners, 0u);
    }
    workgroupBarrier();
    dropGroups(thread);

    let threshold = findThreshold(thread);
    for (var expert = thread; expert < NUM_EXPERTS; expert += THREADS) {
      let order = row_orders[expert];
      let isTied = order == threshold.x && isAmongEquals(expert, order, TOP_K - threshold.y);
      if (order > threshold.x || isTied) {
        winners[atomicAdd(&num_winners, 1u)] = expert;
      }
    }
    workgroupBarrier();
    if (thread < TOP_K) {
      let expert = winners[thread];
      let order = row_orders[expert];
      var place = 0u;
      for (var i = 0u; i < TOP_K; i++) {
        let rival = row_orders[winners[i]];
        place += select(0u, 1u, rival > order || (rival == order && winners[i] < expert));
      }
      sorted[place] = expert;
    }
    workgroupBarrier();
    if (WEIGHS != 0u && NEEDS_SUM == 0u) {
      stats.max = boundedOf(vec4u(readOne(row, sorted[0]))).x;
    }
    if (thread < TOP_K) {
      row_weights[thread] = weightOf(row, sorted[thread], stats);
    }
    workgroupBarrier();
    if (thread < TOP_K) {
      var total = Sum(0);
      for (var i = 0u; i < TOP_K; i++) {
        total += row_weights[i];
      }
      putChoice(row, thread, sorted[thread], row_weights[thread], total);
    }
    workgroupBarrier();
  }
}
