// `pack` for a monolithic router: gathers rows out of `routing_replay_out`, layer by layer int16, dense and narrow. A
// thread a word of output.

// [L, maxNumBatchedTokens, K] int16
@group(0) @binding(0) var<storage, read> routingReplayOut: array<u32>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> packed: array<u32>;

const ROW_LENGTH: u32 = NUM_LAYERS * TOP_K;
const BITS_PER_ID: u32 = 32u / IDS_PER_WORD;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let numIds = rows[0] * ROW_LENGTH;
  let numWords = (numIds + IDS_PER_WORD - 1u) / IDS_PER_WORD;
  for (var word = id.x; word < numWords; word += groups.x * THREADS) {
    var bits = 0u;
    for (var part = 0u; part < IDS_PER_WORD; part++) {
      let ordinal = word * IDS_PER_WORD + part;
      if (ordinal < numIds) {
        let column = ordinal % ROW_LENGTH;
        let place = ((column / TOP_K) * MAX_TOKENS + rows[1u + ordinal / ROW_LENGTH]) * TOP_K + column % TOP_K;
        bits |= ((routingReplayOut[place / 2u] >> (16u * (place % 2u))) & 0xffffu) << (BITS_PER_ID * part);
      }
    }
    packed[word] = bits;
  }
}
