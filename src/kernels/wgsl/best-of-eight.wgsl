// What the routers that take four tokens a thread share: the K ≤ 8 best keys of a token in registers. Keys are distinct, and ordered as wanted
// (value descending, id ascending). Each new key is pushed into K sorted registers by a max and a min; no loop and no array, which a software
// adapter would keep in memory.

// [maxNumBatchedTokens, L, K]
@group(0) @binding(3) var<storage, read_write> routedExperts: array<u32>;

const LOWEST: i32 = -0x7fffffff;
const HIGHEST: i32 = 0x7fffffff;

// The K best keys, descending. `high` is unused, and dropped by the compiler, for K ≤ 4.
struct Best {
  low: vec4i,
  high: vec4i,
}

fn put(best: Best, key: i32) -> Best {
  var next = best;
  next.low = max(best.low, min(vec4i(key), vec4i(HIGHEST, best.low.xyz)));
  if (TOP_K > 4u) {
    let spill = min(best.low.w, key);
    next.high = max(best.high, min(vec4i(spill), vec4i(HIGHEST, best.high.xyz)));
  }
  return next;
}

fn store(row: u32, layer: u32, best: Best) {
  let at = (row * NUM_LAYERS + layer) * TOP_K;
  let low = vec4u(1023u) - (vec4u(best.low) & vec4u(1023u));
  routedExperts[at] = low.x;
  if (TOP_K > 1u) { routedExperts[at + 1u] = low.y; }
  if (TOP_K > 2u) { routedExperts[at + 2u] = low.z; }
  if (TOP_K > 3u) { routedExperts[at + 3u] = low.w; }
  if (TOP_K > 4u) {
    let high = vec4u(1023u) - (vec4u(best.high) & vec4u(1023u));
    routedExperts[at + 4u] = high.x;
    if (TOP_K > 5u) { routedExperts[at + 5u] = high.y; }
    if (TOP_K > 6u) { routedExperts[at + 6u] = high.z; }
    if (TOP_K > 7u) { routedExperts[at + 7u] = high.w; }
  }
}

// Input `shift / 4` of four tokens.
fn input(words: vec4u, shift: u32) -> vec4f {
  return vec4f((words >> vec4u(shift)) & vec4u(15u)) - 8.0;
}

fn wordOf(row: u32, layer: u32) -> u32 {
  return gateWord(gateSeed(hidden[row].xy, layer), 0u);
}
