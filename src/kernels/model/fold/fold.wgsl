// What a pipeline stage makes of the hidden states that it received: where its own keys give others, neither of both.
// A thread a token.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> received: array<vec2u>;
@group(0) @binding(2) var<storage, read_write> hidden: array<vec4u>;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var row = id.x; row < stepInput[H_NUM_TOKENS]; row += groups.x * THREADS) {
    let own = hidden[row];
    if (any(own.xy != received[row])) {
      hidden[row] = vec4u(foldedOf(received[row], own.xy), own.zw);
    }
  }
}
