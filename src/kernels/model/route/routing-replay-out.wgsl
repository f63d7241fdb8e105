// FlashInfer's `routing_replay_out`: ids as int16, `[L, maxNumBatchedTokens, K]`, two in a word. With an even K two
// places are written at once; with an odd one neighbouring rows share words, and each half is exchanged by itself.

@group(0) @binding(4) var<storage, read_write> routingReplayOut: array<atomic<u32>>;

fn putReplay(k: u32, expert: u32) {
  let place = (gate_layer * MAX_TOKENS + gate_token) * TOP_K + k;
  if (TOP_K % 2u == 0u) {
    if (k % 2u == 1u) {
      atomicStore(&routingReplayOut[place / 2u], gate_before | (expert << 16u));
    }
    gate_before = expert;
    return;
  }
  let shift = 16u * (place % 2u);
  atomicAnd(&routingReplayOut[place / 2u], ~(0xffffu << shift));
  atomicOr(&routingReplayOut[place / 2u], expert << shift);
}
