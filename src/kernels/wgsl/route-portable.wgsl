// Router without subgroups, for gate width 8, an even number of experts, K ≤ 8. A thread takes four tokens through one layer, so that what it
// loads and unpacks of a weight serves all four; the layer is the workgroup's, hence all its threads load the same weights at once.
//
// Two experts share a multiplication. With weights as nibbles in [0, 15] and inputs in [−8, 7] a raw sum lies in [−960, 840], and one f32
// holds the weights of experts 2i and 2i + 1 as `even + 2048 · odd`: sums stay under 2^21, exact in any order. Σ x·(w + 8) is the logit plus
// 8 Σ x, the same for all experts of a token. So `1024 + sum` has the even expert's logit in its low 11 bits, the odd one's above.
//
// A key is `logit · 1024 + 1023 − id`.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
// [L, E / 2, 8]: `even + 2048 · odd` for each pair of experts.
@group(0) @binding(2) var<storage, read> gateWeights: array<vec4f>;

// What the odd expert's key lacks against the even one's, whose logit carries the 1024.
const ODD_OFFSET: i32 = 1024 * 1024 - 1;

@compute @workgroup_size(ROUTE_THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
  let layer = group.y;
  let numTokens = stepInput[H_NUM_TOKENS];
  let row = id.x * 4u;
  if (row >= numTokens) {
    return;
  }
  let last = numTokens - 1u;
  let words = vec4u(
    wordOf(row, layer),
    wordOf(min(row + 1u, last), layer),
    wordOf(min(row + 2u, last), layer),
    wordOf(min(row + 3u, last), layer),
  );
  let x0 = input(words, 0u);
  let x1 = input(words, 4u);
  let x2 = input(words, 8u);
  let x3 = input(words, 12u);
  let x4 = input(words, 16u);
  let x5 = input(words, 20u);
  let x6 = input(words, 24u);
  let x7 = input(words, 28u);

  let none = Best(vec4i(LOWEST), vec4i(LOWEST));
  var best0 = none;
  var best1 = none;
  var best2 = none;
  var best3 = none;
  var weight = layer * NUM_EXPERTS;
  for (var expert = 0u; expert < NUM_EXPERTS; expert += 2u) {
    let a = gateWeights[weight];
    let b = gateWeights[weight + 1u];
    let raw = a.x * x0 + a.y * x1 + a.z * x2 + a.w * x3 + b.x * x4 + b.y * x5 + b.z * x6 + b.w * x7;
    let sums = vec4i(raw + 1024.0);
    let id = i32(1023u - expert);
    let even = ((sums & vec4i(2047)) << vec4u(10u)) + vec4i(id);
    let odd = ((sums >> vec4u(11u)) << vec4u(10u)) + vec4i(id + ODD_OFFSET);
    best0 = put(put(best0, even.x), odd.x);
    best1 = put(put(best1, even.y), odd.y);
    best2 = put(put(best2, even.z), odd.z);
    best3 = put(put(best3, even.w), odd.w);
    weight += 2u;
  }
  store(row, layer, best0);
  if (row + 1u <= last) { store(row + 1u, layer, best1); }
  if (row + 2u <= last) { store(row + 2u, layer, best2); }
  if (row + 3u <= last) { store(row + 3u, layer, best3); }
}
