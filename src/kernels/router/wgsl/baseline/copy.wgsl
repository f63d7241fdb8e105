// The adapter's own bandwidth: what a kernel can read and write that does nothing else.

@group(0) @binding(0) var<storage, read> params: array<u32>;
@group(0) @binding(1) var<storage, read> source: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4u>;

// params: number of quads.
@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var i = id.x; i < params[0]; i += groups.x * THREADS) {
    output[i] = source[i];
  }
}
