// The rows of a step out of `routing_replay_out`, as a modular router would have left them: for a design that reads
// that buffer whole. A thread an id.

// [L, maxNumBatchedTokens, K] int16
@group(0) @binding(0) var<storage, read> routingReplayOut: array<u32>;
@group(0) @binding(1) var<storage, read> stepInput: array<u32>;
// [maxNumBatchedTokens, L, K]
@group(0) @binding(2) var<storage, read_write> routedExperts: array<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let numIds = stepInput[H_NUM_TOKENS] * NUM_LAYERS * TOP_K;
  for (var at = id.x; at < numIds; at += groups.x * THREADS) {
    let k = at % TOP_K;
    let layer = at / TOP_K % NUM_LAYERS;
    let place = (layer * MAX_TOKENS + at / (TOP_K * NUM_LAYERS)) * TOP_K + k;
    routedExperts[at] = (routingReplayOut[place / 2u] >> (16u * (place % 2u))) & 0xffffu;
  }
}
