// Router with subgroups, for routing functions that are not plain top-k: a subgroup takes one token through one layer. Its lanes share the
// experts out and keep their choices in registers; sums and groups go round by shuffles, and the K best keys are found as in route-subgroup.wgsl.
//
// Lanes are shared out to the groups, so that what a lane holds is of one group; their number divides that of lanes:
//
//     32 lanes, 8 groups of 32      lane      0   1   2   3   4  …
//                                   group     0   0   0   0   1  …
//                                   experts   0   1   2   3   32 …    + 4, + 8, …

const GROUP_SIZE: u32 = NUM_EXPERTS / GROUPS;

// The i-th expert of a lane, and whether there is one: else some expert of its group.
struct Held {
  expert: u32,
  isExpert: bool,
}

fn heldBy(lane: u32, i: u32, groupLanes: u32) -> Held {
  let member = i * groupLanes + lane % groupLanes;
  return Held(lane / groupLanes * GROUP_SIZE + min(member, GROUP_SIZE - 1u), member < GROUP_SIZE);
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
  if (SUMS_TWO == 1u) {
    score += second;
  }
  var better = 0u;
  for (var group = 0u; group < GROUPS; group++) {
    let rival = subgroupShuffle(score, group * groupLanes);
    better += select(0u, 1u, (rival > score) | ((rival == score) & (group < lane / groupLanes)));
  }
  return better < KEPT_GROUPS;
}

@compute @workgroup_size(ROUTE_THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) subgroupSize: u32,
) {
  let size = lanesOf(subgroupSize);
  let groupLanes = size / GROUPS;
  let layer = workgroup.y;
  let subgroups = ROUTE_THREADS / size;
  let numTokens = stepInput[H_NUM_TOKENS];
  var row = workgroup.x * subgroups + subgroupBroadcastFirst(thread) / size;
  // Reads beyond the buffer are clamped, and writes are guarded.
  loop {
    let seed = gateSeed(hidden[row].xy, layer);
    var inputs = inputsOf(seed);
    // Logits, then choices, then keys; LOWEST where a lane has no expert.
    var keys: Keys;
    if (CHOICE == BY_SOFTMAX) {
      var largest = LOWEST;
      for (var i = 0u; i < KEYS_PER_LANE; i++) {
        keys[i] = logitOf(&inputs, layer, heldBy(lane, i, groupLanes).expert);
        largest = max(largest, keys[i]);
      }
      largest = maxOver(size, largest);
      var sum = 0u;
      for (var i = 0u; i < KEYS_PER_LANE; i++) {
        let exponential = exponentialOf(u32(largest - keys[i]));
        sum += select(0u, exponential, heldBy(lane, i, groupLanes).isExpert);
        keys[i] = i32(exponential);
      }
      let reciprocal = reciprocalOf(sumOver(size, sum));
      for (var i = 0u; i < KEYS_PER_LANE; i++) {
        let held = heldBy(lane, i, groupLanes);
        let choice = softmaxChoiceOf(u32(keys[i]), reciprocal, layer, held.expert);
        keys[i] = select(LOWEST, choice, held.isExpert);
      }
    } else {
      for (var i = 0u; i < KEYS_PER_LANE; i++) {
        let held = heldBy(lane, i, groupLanes);
        let choice = choiceOf(logitOf(&inputs, layer, held.expert), layer, held.expert);
        keys[i] = select(LOWEST, choice, held.isExpert);
      }
    }

    var isKept = true;
    if (GROUPS > 1u) {
      isKept = isLaneKept(&keys, lane, groupLanes);
    }
    for (var i = 0u; i < KEYS_PER_LANE; i++) {
      let held = heldBy(lane, i, groupLanes);
      let isOpen = held.isExpert & isKept;
      keys[i] = select(LOWEST, keyOfChoice(select(0, keys[i], isOpen), held.expert), isOpen);
    }
    putBest(&keys, row, layer, lane, size, seed, row < numTokens);
    row += workgroups.x * subgroups;
    if (row >= numTokens) {
      break;
    }
  }
}
