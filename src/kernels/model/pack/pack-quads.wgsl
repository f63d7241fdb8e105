// `pack` for rows whose length is a multiple of 4 (every published shape): a thread takes four ids with one load and no
// carry between rows.

@group(0) @binding(0) var<storage, read> routedExperts: array<vec4u>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> packed: array<u32>;

const QUADS_PER_ROW: u32 = NUM_LAYERS * TOP_K / 4u;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let numQuads = rows[0] * QUADS_PER_ROW;
  for (var quad = id.x; quad < numQuads; quad += groups.x * THREADS) {
    let ordinal = quad / QUADS_PER_ROW;
    let ids = routedExperts[rows[1u + ordinal] * QUADS_PER_ROW + quad - ordinal * QUADS_PER_ROW];
    if (IDS_PER_WORD == 4u) {
      packed[quad] = ids.x | (ids.y << 8u) | (ids.z << 16u) | (ids.w << 24u);
    } else {
      packed[2u * quad] = ids.x | (ids.y << 16u);
      packed[2u * quad + 1u] = ids.z | (ids.w << 16u);
    }
  }
}
