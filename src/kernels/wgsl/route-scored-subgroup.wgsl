// Router with subgroups of any size ≥ E / KEYS_PER_LANE, for routing functions that are not plain top-k: a subgroup takes one token through one
// layer. Its lanes share the experts out and keep their choices in registers; sums and groups go round by shuffles, and the K best keys are found
// as in route-subgroup.wgsl.

@compute @workgroup_size(ROUTE_THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) size: u32,
) {
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
    for (var i = 0u; i < KEYS_PER_LANE; i++) {
      let expert = i * size + lane;
      keys[i] = select(LOWEST, logitOf(&inputs, layer, min(expert, NUM_EXPERTS - 1u)), expert < NUM_EXPERTS);
    }
    if (CHOICE == BY_SOFTMAX) {
      var largest = LOWEST;
      for (var i = 0u; i < KEYS_PER_LANE; i++) {
        largest = max(largest, keys[i]);
      }
      largest = maxOver(size, largest);
      var sum = 0u;
      for (var i = 0u; i < KEYS_PER_LANE; i++) {
        let isExpert = i * size + lane < NUM_EXPERTS;
        let exponential = exponentialOf(u32(largest - select(largest, keys[i], isExpert)));
        sum += select(0u, exponential, isExpert);
        keys[i] = i32(exponential);
      }
      let reciprocal = reciprocalOf(sumOver(size, sum));
      for (var i = 0u; i < KEYS_PER_LANE; i++) {
        let expert = i * size + lane;
        let choice = softmaxChoiceOf(u32(keys[i]), reciprocal, layer, min(expert, NUM_EXPERTS - 1u));
        keys[i] = select(LOWEST, choice, expert < NUM_EXPERTS);
      }
    } else {
      for (var i = 0u; i < KEYS_PER_LANE; i++) {
        let expert = i * size + lane;
        let isExpert = expert < NUM_EXPERTS;
        let choice = choiceOf(select(0, keys[i], isExpert), layer, min(expert, NUM_EXPERTS - 1u));
        keys[i] = select(LOWEST, choice, isExpert);
      }
    }

    var kept = 1u;
    if (GROUPS > 1u) {
      var scores: array<i32, GROUPS>;
      for (var group = 0u; group < GROUPS; group++) {
        var two = vec2i(LOWEST);
        for (var i = 0u; i < KEYS_PER_LANE; i++) {
          let isMember = (i * size + lane) / (NUM_EXPERTS / GROUPS) == group;
          let choice = select(LOWEST, keys[i], isMember);
          two = vec2i(max(two.x, choice), max(two.y, min(two.x, choice)));
        }
        if (SUMS_TWO == 1u) {
          two = twoLargestOver(size, two);
          scores[group] = two.x + two.y;
        } else {
          scores[group] = maxOver(size, two.x);
        }
      }
      kept = keptGroups(&scores);
    }

    for (var i = 0u; i < KEYS_PER_LANE; i++) {
      let expert = i * size + lane;
      let isOpen = (expert < NUM_EXPERTS) & isKept(kept, min(expert, NUM_EXPERTS - 1u));
      keys[i] = select(LOWEST, keyOfChoice(select(0, keys[i], isOpen), expert), isOpen);
    }
    putBest(&keys, row, layer, lane, size, seed, row < numTokens);
    row += workgroups.x * subgroups;
    if (row >= numTokens) {
      break;
    }
  }
}
