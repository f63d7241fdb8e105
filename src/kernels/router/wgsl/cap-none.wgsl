// No soft cap: logits are scored as they are.

fn capped(value: vec4f) -> vec4f {
  return value;
}
