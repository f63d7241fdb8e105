// Router without subgroups for routing functions that are not plain top-k, for any shape. A thread takes one token through one layer: it makes
// all choices, ranks the groups, and keeps the K best keys by insertion.

const LOWEST: i32 = -0x7fffffff;

// Bit g: group g is among the best. Of equal groups the smaller one is better.
fn keptGroups(scores: ptr<function, array<i32, GROUPS>>) -> u32 {
  var kept = 0u;
  for (var group = 0u; group < GROUPS; group++) {
    let score = (*scores)[group];
    var better = 0u;
    for (var other = 0u; other < GROUPS; other++) {
      let rival = (*scores)[other];
      better += select(0u, 1u, (rival > score) | ((rival == score) & (other < group)));
    }
    kept |= select(0u, 1u << group, better < KEPT_GROUPS);
  }
  return kept;
}

fn isKept(kept: u32, expert: u32) -> bool {
  return ((kept >> (expert / (NUM_EXPERTS / GROUPS))) & 1u) == 1u;
}

@compute @workgroup_size(ROUTE_THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) workgroup: vec3u) {
  let layer = workgroup.y;
  let row = id.x;
  if (row >= stepInput[H_NUM_TOKENS]) {
    return;
  }
  let seed = gateSeed(hidden[row].xy, layer);
  var inputs = inputsOf(seed);
  var choices: array<i32, NUM_EXPERTS>;
  if (CHOICE == BY_SOFTMAX) {
    var largest = LOWEST;
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
      choices[expert] = logitOf(&inputs, layer, expert);
      largest = max(largest, choices[expert]);
    }
    var sum = 0u;
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
      let exponential = exponentialOf(u32(largest - choices[expert]));
      sum += exponential;
      choices[expert] = i32(exponential);
    }
    let reciprocal = reciprocalOf(sum);
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
      choices[expert] = softmaxChoiceOf(u32(choices[expert]), reciprocal, layer, expert);
    }
  } else {
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
      choices[expert] = choiceOf(logitOf(&inputs, layer, expert), layer, expert);
    }
  }

  var kept = 1u;
  if (GROUPS > 1u) {
    var scores: array<i32, GROUPS>;
    for (var group = 0u; group < GROUPS; group++) {
      var first = LOWEST;
      var second = LOWEST;
      for (var member = 0u; member < NUM_EXPERTS / GROUPS; member++) {
        let choice = choices[group * (NUM_EXPERTS / GROUPS) + member];
        second = max(second, min(first, choice));
        first = max(first, choice);
      }
      scores[group] = first;
      if (SUMS_TWO == 1u) {
        scores[group] = first + second;
      }
    }
    kept = keptGroups(&scores);
  }

  var best: array<i32, TOP_K>;
  for (var k = 0u; k < TOP_K; k++) {
    best[k] = LOWEST;
  }
  for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
    var key = select(LOWEST, keyOfChoice(choices[expert], expert), isKept(kept, expert));
    if (key > best[TOP_K - 1u]) {
      for (var k = 0u; k < TOP_K; k++) {
        let held = best[k];
        best[k] = max(held, key);
        key = min(held, key);
      }
    }
  }
  var previous = 0u;
  var work = 0u;
  for (var k = 0u; k < TOP_K; k++) {
    let expert = 1023u - (u32(best[k]) & 1023u);
    putId(row, layer, k, expert, previous);
    work += expertWork(seed, layer, expert);
    previous = expert;
  }
  putWork(row, layer, work);
}
