// [rows, E], of rows of any length
@group(0) @binding(4) var<storage, read_write> choices: array<f32>;

fn putChoices(row: u32, first: u32, choice: vec4f) {
  for (var i = 0u; i < min(4u, NUM_EXPERTS - first); i++) {
    choices[row * NUM_EXPERTS + first + i] = choice[i];
  }
}
