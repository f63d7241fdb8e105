// Gate and selection in one kernel, for software adapters: gate width 8, an even number of experts, in a group too. A
// thread takes four tokens through one layer, so that what it loads and unpacks of a weight serves all four. It goes
// through the experts as often as the function asks for: for a softmax's largest logit, for its sum, for the scores of
// groups, and to select. What it computes anew costs no more than a place in memory.
//
// Two experts share a multiplication. With weights as nibbles in [0, 15] and inputs in [−8, 7] a raw sum lies in [−960,
// 840], and one f32 holds the weights of experts 2i and 2i + 1 as `even + 2048 · odd`: sums stay under 2^21, exact in
// any order. Σ x·(w + 8) is the logit plus 8 Σ x, the same for all experts of a token.
//
// A key is `choice · 1024 + 1023 − id`: keys are distinct and ordered as wanted.

const LOWEST: i32 = -0x7fffffff;

struct FourTokens {
  x0: vec4f,
  x1: vec4f,
  x2: vec4f,
  x3: vec4f,
  x4: vec4f,
  x5: vec4f,
  x6: vec4f,
  x7: vec4f,
  // 8 Σ x, where scores are looked up by the logit itself.
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

// Input `shift / 4` of four tokens.
fn inputOf(words: vec4u, shift: u32) -> vec4f {
  return vec4f((words >> vec4u(shift)) & vec4u(15u)) - 8.0;
}

fn wordOf(token: u32, layer: u32) -> u32 {
  return gateWord(gateSeed(hidden[token].xy, FIRST_LAYER + layer), 0u);
}

fn fourTokens(words: vec4u) -> FourTokens {
  var t: FourTokens;
  t.x0 = inputOf(words, 0u);
  t.x1 = inputOf(words, 4u);
  t.x2 = inputOf(words, 8u);
  t.x3 = inputOf(words, 12u);
  t.x4 = inputOf(words, 16u);
  t.x5 = inputOf(words, 20u);
  t.x6 = inputOf(words, 24u);
  t.x7 = inputOf(words, 28u);
  if (BY_LOGIT == 0u) {
    t.excess = vec4i((t.x0 + t.x1 + t.x2 + t.x3 + t.x4 + t.x5 + t.x6 + t.x7) * 8.0);
  }
  return t;
}

// `[L, E / 2, 8]` weights of pairs.
fn pairOf(t: FourTokens, layer: u32, expert: u32) -> Pair {
  let weight = layer * NUM_EXPERTS + expert;
  let a = gateWeights[weight];
  let b = gateWeights[weight + 1u];
  let raw = a.x * t.x0 + a.y * t.x1 + a.z * t.x2 + a.w * t.x3 + b.x * t.x4 + b.y * t.x5 + b.z * t.x6 + b.w * t.x7;
  let sums = vec4i(raw + 1024.0);
  var pair = Pair((sums & vec4i(2047)) - vec4i(1024), sums >> vec4u(11u));
  if (BY_LOGIT == 0u) {
    pair = Pair(pair.even - t.excess, pair.odd - t.excess);
  }
  return pair;
}

fn choicesOf(logits: vec4i, layer: u32, expert: u32, totals: Totals) -> vec4i {
  if (BY_LOGIT != 0u) {
    return logits;
  }
  return fixedScores(logits, totals.largest, totals.reciprocal) + vec4i(biasOf(layer, expert));
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
    sum += fixedExponentials(largest - pair.even) + fixedExponentials(largest - pair.odd);
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
    if (GROUP_TOP2 == 1u) {
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

fn putBest(token: u32, layer: u32, best: Best) {
  enterToken(token, layer);
  let keys = array<vec4i, 8>(best.a, best.b, best.c, best.d, best.e, best.f, best.g, best.h);
  let stats = Stats(0.0, 1.0);
  var experts: array<u32, TOP_K>;
  var total = Sum(0);
  for (var k = 0u; k < TOP_K; k++) {
    experts[k] = 1023u - (u32(keys[k / 4u][k % 4u]) & 1023u);
    total += weightOf(0u, experts[k], stats);
  }
  for (var k = 0u; k < TOP_K; k++) {
    putChoice(0u, k, experts[k], Sum(0), total);
  }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) workgroup: vec3u) {
  let layer = workgroup.y;
  let numTokens = stepInput[H_NUM_TOKENS];
  let token = id.x * 4u;
  if (token >= numTokens) {
    return;
  }
  let last = numTokens - 1u;
  let t = fourTokens(vec4u(
    wordOf(token, layer),
    wordOf(min(token + 1u, last), layer),
    wordOf(min(token + 2u, last), layer),
    wordOf(min(token + 3u, last), layer),
  ));
  var totals = Totals(vec4i(0), vec4u(0u));
  if (NEEDS_SUM != 0u) {
    totals = totalsOf(t, layer);
  }
  var kept = vec4u(1u);
  if (GROUPS > 1u) {
    kept = keptGroups(t, layer, totals);
  }

  var best0 = emptyBest();
  var best1 = emptyBest();
  var best2 = emptyBest();
  var best3 = emptyBest();
  for (var group = 0u; group < GROUPS; group++) {
    let isKept = ((kept >> vec4u(group)) & vec4u(1u)) == vec4u(1u);
    for (var expert = group * GROUP_SIZE; expert < (group + 1u) * GROUP_SIZE; expert += 2u) {
      let pair = pairOf(t, layer, expert);
      let id = i32(1023u - expert);
      var even = (choicesOf(pair.even, layer, expert, totals) << vec4u(10u)) + vec4i(id);
      var odd = (choicesOf(pair.odd, layer, expert + 1u, totals) << vec4u(10u)) + vec4i(id - 1);
      if (GROUPS > 1u) {
        even = select(vec4i(LOWEST), even, isKept);
        odd = select(vec4i(LOWEST), odd, isKept);
      }
      best0 = put(put(best0, even.x), odd.x);
      best1 = put(put(best1, even.y), odd.y);
      best2 = put(put(best2, even.z), odd.z);
      best3 = put(put(best3, even.w), odd.w);
    }
  }
  putBest(token, layer, best0);
  if (token + 1u <= last) { putBest(token + 1u, layer, best1); }
  if (token + 2u <= last) { putBest(token + 2u, layer, best2); }
  if (token + 3u <= last) { putBest(token + 3u, layer, best3); }
}
