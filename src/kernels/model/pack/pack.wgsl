// Gathers rows of expert ids, dense and narrow, little-endian. A thread a word of output, so that no two threads share
// one.

@group(0) @binding(0) var<storage, read> routedExperts: array<u32>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> packed: array<u32>;

const ROW_LENGTH: u32 = NUM_LAYERS * TOP_K;
const BITS_PER_ID: u32 = 32u / IDS_PER_WORD;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let numIds = rows[0] * ROW_LENGTH;
  let numWords = (numIds + IDS_PER_WORD - 1u) / IDS_PER_WORD;
  for (var word = id.x; word < numWords; word += groups.x * THREADS) {
    var row = word * IDS_PER_WORD / ROW_LENGTH;
    var column = word * IDS_PER_WORD % ROW_LENGTH;
    var bits = 0u;
    for (var part = 0u; part < IDS_PER_WORD && row < rows[0]; part++) {
      bits |= routedExperts[rows[1u + row] * ROW_LENGTH + column] << (BITS_PER_ID * part);
      column += 1u;
      if (column == ROW_LENGTH) {
        column = 0u;
        row += 1u;
      }
    }
    packed[word] = bits;
  }
}
