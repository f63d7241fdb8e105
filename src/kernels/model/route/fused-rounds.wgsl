enable subgroups;

// Subgroup operations stand in loops whose bounds come from workgroup ids and the subgroup size. They are uniform in a
// subgroup, which the compiler cannot prove.
diagnostic(off, subgroup_uniformity);

// Gate and selection in one kernel, for subgroups of any size from 4 to 128: a subgroup takes one token through one
// layer. Its lanes share the experts out, keep their choices in registers, and find the K best in K rounds of one
// integer max over the subgroup. On NVIDIA 580 `subgroupMax` gave wrong maxima in rounds that branch
// (docs/router-kernels.md): it stands in rounds without branches only, with a shuffle behind it; everything else is
// made of shuffles.
//
// Lanes are shared out to the groups, so that what a lane holds is of one group; their number divides that of lanes:
//
//     32 lanes, 8 groups of 32      lane      0   1   2   3   4  …
//                                   group     0   0   0   0   1  …
//                                   experts   0   1   2   3   32 …    + 4, + 8, …
//
// A key is `choice · 1024 + 1023 − id`: keys are distinct and ordered as wanted. Where choices are logits and there are
// no groups, inputs carry the factor 1024, and sums of products start with the id: exact in f32 below 2^24.

const LOWEST: i32 = -0x7fffffff;
const IS_PLAIN: bool = BY_LOGIT != 0u && GROUPS == 1u;
const INPUT_SCALE: f32 = select(1.0, 1024.0, IS_PLAIN);

alias Inputs = array<vec4f, GATE_QUADS>;
alias Keys = array<i32, KEYS_PER_LANE>;

// The i-th expert of a lane, and whether there is one: else some expert of its group.
struct Held {
  expert: u32,
  isExpert: bool,
}

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

fn heldBy(lane: u32, i: u32, groupLanes: u32) -> Held {
  let member = i * groupLanes + lane % groupLanes;
  return Held(lane / groupLanes * GROUP_SIZE + min(member, GROUP_SIZE - 1u), member < GROUP_SIZE);
}

// The scaled logit, on top of `start`.
fn sumFor(inputs: ptr<function, Inputs>, layer: u32, expert: u32, start: f32) -> i32 {
  var sum = start;
  for (var quad = 0u; quad < GATE_QUADS; quad++) {
    sum += dot((*inputs)[quad], weightsOf(layer, expert, quad));
  }
  return i32(sum);
}

// Whether the lane's group is among the best. Of equal groups the smaller one is better.
fn isLaneKept(keys: ptr<function, Keys>, lane: u32, groupLanes: u32) -> bool {
  var first = LOWEST;
  var second = LOWEST;
  for (var i = 0u; i < KEYS_PER_LANE; i++) {
    second = max(second, min(first, (*keys)[i]));
    first = max(first, (*keys)[i]);
  }
  for (var step = 1u; step < groupLanes; step *= 2u) {
    let otherFirst = subgroupShuffleXor(first, step);
    let otherSecond = subgroupShuffleXor(second, step);
    second = max(min(first, otherFirst), max(second, otherSecond));
    first = max(first, otherFirst);
  }
  var score = first;
  if (GROUP_TOP2 == 1u) {
    score += second;
  }
  var better = 0u;
  for (var group = 0u; group < GROUPS; group++) {
    let rival = subgroupShuffle(score, group * groupLanes);
    better += select(0u, 1u, (rival > score) | ((rival == score) & (group < lane / groupLanes)));
  }
  return better < KEPT_GROUPS;
}

// The lane's choices, LOWEST where it has no expert.
fn choose(inputs: ptr<function, Inputs>, keys: ptr<function, Keys>, layer: u32, lane: u32, size: u32) {
  let groupLanes = size / GROUPS;
  var largest = LOWEST;
  var reciprocal = 0u;
  for (var i = 0u; i < KEYS_PER_LANE; i++) {
    (*keys)[i] = sumFor(inputs, layer, heldBy(lane, i, groupLanes).expert, 0.0);
    largest = max(largest, (*keys)[i]);
  }
  if (NEEDS_SUM != 0u) {
    largest = maxOver(size, largest);
    var sum = 0u;
    for (var i = 0u; i < KEYS_PER_LANE; i++) {
      let exponential = fixedExponentials(vec4i(largest - (*keys)[i])).x;
      sum += select(0u, exponential, heldBy(lane, i, groupLanes).isExpert);
      (*keys)[i] = i32(exponential);
    }
    reciprocal = RECIPROCAL_ONE / sumOver(size, sum);
  }
  for (var i = 0u; i < KEYS_PER_LANE; i++) {
    let held = heldBy(lane, i, groupLanes);
    var choice = (*keys)[i];
    if (NEEDS_SUM != 0u) {
      choice = fixedShares(vec4u(u32(choice)), vec4u(reciprocal)).x + biasOf(layer, held.expert);
    } else if (BY_LOGIT == 0u) {
      choice = fixedScores(vec4i(choice), vec4i(0), vec4u(0u)).x + biasOf(layer, held.expert);
    }
    (*keys)[i] = select(LOWEST, choice, held.isExpert);
  }
}

// Finds the K best of all lanes' keys in K rounds, and puts them out for the row, if there is one. Keys are distinct,
// so the next best are those under the one found, and nothing is struck out. Every lane does the same work in every
// round.
fn putBest(keys: ptr<function, Keys>, lane: u32, size: u32, isRow: bool) {
  let stats = Stats(0.0, 1.0);
  var best = LOWEST;
  for (var i = 0u; i < KEYS_PER_LANE; i++) {
    best = max(best, (*keys)[i]);
  }
  // Of place k, in lane k % size: the expert, and the one before it.
  var chosen: array<u32, SLOTS>;
  var before: array<u32, SLOTS>;
  var previous = 0u;
  var total = Sum(0);
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
    total += weightOf(0u, expert, stats);
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
        gate_before = before[slot];
        putChoice(0u, k, chosen[slot], Sum(0), total);
      }
    }
  }
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) subgroupSize: u32,
) {
  let size = lanesOf(subgroupSize);
  let layer = workgroup.y;
  let subgroups = THREADS / size;
  let numTokens = stepInput[H_NUM_TOKENS];
  var token = workgroup.x * subgroups + subgroupBroadcastFirst(thread) / size;
  // Reads beyond the buffer are clamped, and writes are guarded.
  loop {
    enterToken(token, layer);
    var inputs: Inputs;
    for (var quad = 0u; quad < GATE_QUADS; quad++) {
      inputs[quad] = inputsOf(gate_seed, quad) * INPUT_SCALE;
    }
    var keys: Keys;
    if (IS_PLAIN) {
      for (var i = 0u; i < KEYS_PER_LANE; i++) {
        let expert = min(i * size + lane, NUM_EXPERTS - 1u);
        keys[i] = select(LOWEST, sumFor(&inputs, layer, expert, f32(1023u - expert)), i * size + lane < NUM_EXPERTS);
      }
    } else {
      choose(&inputs, &keys, layer, lane, size);
      var isKept = true;
      if (GROUPS > 1u) {
        isKept = isLaneKept(&keys, lane, size / GROUPS);
      }
      for (var i = 0u; i < KEYS_PER_LANE; i++) {
        let held = heldBy(lane, i, size / GROUPS);
        let isOpen = held.isExpert & isKept;
        keys[i] = select(LOWEST, select(0, keys[i], isOpen) * 1024 + i32(1023u - held.expert), isOpen);
      }
    }
    putBest(&keys, lane, size, token < numTokens);
    token += workgroups.x * subgroups;
    if (token >= numTokens) {
      break;
    }
  }
}
