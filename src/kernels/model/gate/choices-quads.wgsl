// [rows, E / 4]
@group(0) @binding(4) var<storage, read_write> choices: array<vec4f>;

fn putChoices(row: u32, first: u32, choice: vec4f) {
  choices[(row * NUM_EXPERTS + first) / 4u] = choice;
}
