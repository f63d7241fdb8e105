// Router without subgroups for routing functions that are not plain top-k, for gate width 8, an even number of experts, in a group too, K ≤ 8.
// A thread takes four tokens through one layer, two experts at a time, as in route-portable.wgsl, and as often as the function asks for: for a
// softmax's largest logit, for its sum, for the scores of groups, and to select. What it computes anew costs no more than a place in memory.

const GROUP_SIZE: u32 = NUM_EXPERTS / GROUPS;

struct FourTokens {
  x0: vec4f,
  x1: vec4f,
  x2: vec4f,
  x3: vec4f,
  x4: vec4f,
  x5: vec4f,
  x6: vec4f,
  x7: vec4f,
  // 8 Σ x: what the sums of products with weights in [0, 15] have over logits.
  excess: vec4i,
}

// Of a softmax.
struct Totals {
  largest: vec4i,
  reciprocal: vec4u,
}

// Four tokens' logits of experts 2i and 2i + 1.
struct Pair {
  even: vec4i,
  odd: vec4i,
}

fn fourTokens(words: vec4u) -> FourTokens {
  var t: FourTokens;
  t.x0 = input(words, 0u);
  t.x1 = input(words, 4u);
  t.x2 = input(words, 8u);
  t.x3 = input(words, 12u);
  t.x4 = input(words, 16u);
  t.x5 = input(words, 20u);
  t.x6 = input(words, 24u);
  t.x7 = input(words, 28u);
  t.excess = vec4i((t.x0 + t.x1 + t.x2 + t.x3 + t.x4 + t.x5 + t.x6 + t.x7) * 8.0);
  return t;
}

// `[L, E / 2, 8]`: one f32 holds the weights of a pair as `even + 2048 · odd`.
fn pairOf(t: FourTokens, layer: u32, expert: u32) -> Pair {
  let weight = layer * NUM_EXPERTS + expert;
  let a = bitcast<vec4f>(gateWeights[weight]);
  let b = bitcast<vec4f>(gateWeights[weight + 1u]);
  let raw = a.x * t.x0 + a.y * t.x1 + a.z * t.x2 + a.w * t.x3 + b.x * t.x4 + b.y * t.x5 + b.z * t.x6 + b.w * t.x7;
  let sums = vec4i(raw + 1024.0);
  return Pair((sums & vec4i(2047)) - vec4i(1024) - t.excess, (sums >> vec4u(11u)) - t.excess);
}

fn wordsAt(places: vec4u) -> vec4i {
  return vec4i(wordAt(places.x), wordAt(places.y), wordAt(places.z), wordAt(places.w));
}

fn exponentialsOf(logits: vec4i, largest: vec4i) -> vec4u {
  return vec4u(wordsAt(vec4u(TABLE) + vec4u(largest - logits)));
}

fn choicesOf(logits: vec4i, layer: u32, expert: u32, totals: Totals) -> vec4i {
  if (CHOICE == BY_LOGIT) {
    return logits;
  }
  let bias = vec4i(biasOf(layer, expert));
  if (CHOICE == BY_SOFTMAX) {
    return vec4i((exponentialsOf(logits, totals.largest) * totals.reciprocal) >> vec4u(SCORE_SHIFT)) + bias;
  }
  return wordsAt(vec4u(TABLE) + vec4u(logits + vec4i(i32(LOWEST_LOGIT)))) + bias;
}

fn totalsOf(t: FourTokens, layer: u32) -> Totals {
  var largest = vec4i(LOWEST);
  for (var expert = 0u; expert < NUM_EXPERTS; expert += 2u) {
    let pair = pairOf(t, layer, expert);
    largest = max(largest, max(pair.even, pair.odd));
  }
  var sum = vec4u(0u);
  for (var expert = 0u; expert < NUM_EXPERTS; expert += 2u) {
    let pair = pairOf(t, layer, expert);
    sum += exponentialsOf(pair.even, largest) + exponentialsOf(pair.odd, largest);
  }
  return Totals(largest, vec4u(RECIPROCAL_ONE) / sum);
}

// Bit g of each token: group g is among its best. Of equal groups the smaller one is better.
fn keptGroups(t: FourTokens, layer: u32, totals: Totals) -> vec4u {
  var scores: array<vec4i, GROUPS>;
  for (var group = 0u; group < GROUPS; group++) {
    var first = vec4i(LOWEST);
    var second = vec4i(LOWEST);
    for (var expert = group * GROUP_SIZE; expert < (group + 1u) * GROUP_SIZE; expert += 2u) {
      let pair = pairOf(t, layer, expert);
      let even = choicesOf(pair.even, layer, expert, totals);
      let odd = choicesOf(pair.odd, layer, expert + 1u, totals);
      second = max(max(second, min(first, even)), min(max(first, even), odd));
      first = max(first, max(even, odd));
    }
    scores[group] = first;
    if (SUMS_TWO == 1u) {
      scores[group] = first + second;
    }
  }
  var kept = vec4u(0u);
  for (var group = 0u; group < GROUPS; group++) {
    let score = scores[group];
    var better = vec4u(0u);
    for (var other = 0u; other < GROUPS; other++) {
      let rival = scores[other];
      better += select(vec4u(0u), vec4u(1u), (rival > score) | ((rival == score) & vec4<bool>(other < group)));
    }
    kept |= select(vec4u(0u), vec4u(1u << group), better < vec4u(KEPT_GROUPS));
  }
  return kept;
}

@compute @workgroup_size(ROUTE_THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) workgroup: vec3u) {
  let layer = workgroup.y;
  let numTokens = stepInput[H_NUM_TOKENS];
  let row = id.x * 4u;
  if (row >= numTokens) {
    return;
  }
  let last = numTokens - 1u;
  let t = fourTokens(vec4u(
    wordOf(row, layer),
    wordOf(min(row + 1u, last), layer),
    wordOf(min(row + 2u, last), layer),
    wordOf(min(row + 3u, last), layer),
  ));
  var totals = Totals(vec4i(0), vec4u(0u));
  if (CHOICE == BY_SOFTMAX) {
    totals = totalsOf(t, layer);
  }
  var kept = vec4u(1u);
  if (GROUPS > 1u) {
    kept = keptGroups(t, layer, totals);
  }

  let none = Best(vec4i(LOWEST), vec4i(LOWEST));
  var best0 = none;
  var best1 = none;
  var best2 = none;
  var best3 = none;
  for (var group = 0u; group < GROUPS; group++) {
    let isKept = ((kept >> vec4u(group)) & vec4u(1u)) == vec4u(1u);
    for (var expert = group * GROUP_SIZE; expert < (group + 1u) * GROUP_SIZE; expert += 2u) {
      let pair = pairOf(t, layer, expert);
      let id = i32(1023u - expert);
      let evenKeys = choicesOf(pair.even, layer, expert, totals) * 1024 + vec4i(id);
      let oddKeys = choicesOf(pair.odd, layer, expert + 1u, totals) * 1024 + vec4i(id - 1);
      let even = select(vec4i(LOWEST), evenKeys, isKept);
      let odd = select(vec4i(LOWEST), oddKeys, isKept);
      best0 = put(put(best0, even.x), odd.x);
      best1 = put(put(best1, even.y), odd.y);
      best2 = put(put(best2, even.z), odd.z);
      best3 = put(put(best3, even.w), odd.w);
    }
  }
  store(row, layer, best0);
  if (row + 1u <= last) { store(row + 1u, layer, best1); }
  if (row + 2u <= last) { store(row + 2u, layer, best2); }
  if (row + 3u <= last) { store(row + 3u, layer, best3); }
}
