enable subgroups;

// Subgroup operations stand in loops whose bounds come from workgroup ids and the subgroup size. They are uniform in a subgroup, which the
// compiler cannot prove.
diagnostic(off, subgroup_uniformity);

// What routers with subgroups share: reductions over a whole subgroup, of any size from 4 to 128, and the K best of all lanes' keys. On NVIDIA
// 580 `subgroupMax` gave wrong maxima in rounds that branch (docs/router-kernels.md): it is used in rounds without branches only, with a
// shuffle behind it; everything else is made of shuffles.

const LOWEST: i32 = -0x7fffffff;

alias Keys = array<i32, KEYS_PER_LANE>;

// A constant where all subgroups of the adapter are equal: loops over lanes have a known end.
fn lanesOf(size: u32) -> u32 {
  return select(size, LANES, LANES > 0u);
}

fn maxInRounds(value: i32) -> i32 {
  return subgroupShuffleXor(subgroupMax(value), 0u);
}

fn maxOver(size: u32, value: i32) -> i32 {
  var result = value;
  for (var step = 1u; step < size; step *= 2u) {
    result = max(result, subgroupShuffleXor(result, step));
  }
  return result;
}

fn sumOver(size: u32, value: u32) -> u32 {
  var result = value;
  for (var step = 1u; step < size; step *= 2u) {
    result += subgroupShuffleXor(result, step);
  }
  return result;
}

// Finds the K best of all lanes' keys in K rounds of one integer max, and puts them out for the row, if there is one. Keys are distinct, so the
// next best are those under the one found, and nothing is struck out. Every lane does the same work in every round.
fn putBest(keys: ptr<function, Keys>, row: u32, layer: u32, lane: u32, size: u32, seed: u32, isRow: bool) {
  var best = LOWEST;
  for (var i = 0u; i < KEYS_PER_LANE; i++) {
    best = max(best, (*keys)[i]);
  }
  // Of place k, in lane k % size: the expert, and the one before it.
  var chosen: array<u32, SLOTS>;
  var before: array<u32, SLOTS>;
  var previous = 0u;
  var work = 0u;
  for (var k = 0u; k < TOP_K; k++) {
    let found = maxInRounds(best);
    let expert = 1023u - (u32(found) & 1023u);
    if (SLOTS == 1u) {
      chosen[0] = select(chosen[0], expert, lane == k);
      before[0] = select(before[0], previous, lane == k);
    } else {
      chosen[k / size] = select(chosen[k / size], expert, lane == k % size);
      before[k / size] = select(before[k / size], previous, lane == k % size);
    }
    work += expertWork(seed, layer, expert);
    previous = expert;
    best = LOWEST;
    for (var i = 0u; i < KEYS_PER_LANE; i++) {
      best = max(best, select(LOWEST, (*keys)[i], (*keys)[i] < found));
    }
  }
  if (isRow) {
    for (var slot = 0u; slot < SLOTS; slot++) {
      let k = slot * size + lane;
      if (k < TOP_K) {
        putId(row, layer, k, chosen[slot], before[slot]);
      }
    }
    if (lane == 0u) {
      putWork(row, layer, work);
    }
  }
}
