// Logits for benches: near-normal numbers of variance 1 (four uniform ones summed), from a hash of their place.

@group(0) @binding(0) var<storage, read> params: array<u32>;
@group(0) @binding(1) var<storage, read_write> output: array<vec4f>;

fn evenly(place: u32) -> f32 {
  return f32(scramble(place) >> 8u) * (1.0 / 16777216.0) - 0.5;
}

fn logit(place: u32) -> f32 {
  let first = place * 4u;
  return 1.7320508 * (evenly(first) + evenly(first + 1u) + evenly(first + 2u) + evenly(first + 3u));
}

// params: number of quads, seed.
@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var i = id.x; i < params[0]; i += groups.x * THREADS) {
    let place = i * 4u + scramble(params[1]);
    output[i] = vec4f(logit(place), logit(place + 1u), logit(place + 2u), logit(place + 3u));
  }
}
