// What a launch costs that does nothing.

@group(0) @binding(0) var<storage, read_write> output: array<u32>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3u) {
  if (group.x == 0xffffffffu) {
    output[0] = 1u;
  }
}
