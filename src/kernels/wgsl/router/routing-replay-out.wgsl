// FlashInfer's `routing_replay_out`: ids as int16, `[L, maxNumBatchedTokens, K]`. Two share a word, and different threads may write them: each half
// is exchanged by itself.

@group(0) @binding(4) var<storage, read_write> routingReplayOut: array<atomic<u32>>;

fn putReplay(k: u32, expert: u32) {
  let place = (gate_layer * MAX_TOKENS + gate_token) * TOP_K + k;
  let shift = 16u * (place % 2u);
  atomicAnd(&routingReplayOut[place / 2u], ~(0xffffu << shift));
  atomicOr(&routingReplayOut[place / 2u], expert << shift);
}
