// The choice is the score, with the selection bias where there is one.

fn choiceOrders(bits: vec4u, first: u32, end: u32, stats: Stats) -> vec4i {
  var choice = scoresOf(boundedOf(bits), stats);
  if (HAS_BIAS != 0u) {
    let last = end - 1u;
    choice += vec4f(
      selectionBias[min(first, last)],
      selectionBias[min(first + 1u, last)],
      selectionBias[min(first + 2u, last)],
      selectionBias[min(first + 3u, last)],
    );
  }
  return orderOf(bitcast<vec4u>(choice));
}
