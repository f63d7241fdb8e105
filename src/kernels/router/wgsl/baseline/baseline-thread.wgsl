// Baseline: an invocation a row, K passes over its logits, as a first draft of a router looks.

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var row = id.x; row < numRows(); row += groups.x * THREADS) {
    var lastOrder = HIGHEST;
    var lastExpert = -1;
    var chosen: array<u32, TOP_K>;
    for (var k = 0u; k < TOP_K; k++) {
      var bestOrder = EMPTY;
      var bestExpert = 0;
      for (var expert = 0; expert < i32(NUM_EXPERTS); expert++) {
        let order = orderOf(vec4u(readOne(row, u32(expert)))).x;
        let isBehind = order < lastOrder || (order == lastOrder && expert > lastExpert);
        if (isBehind && order > bestOrder) {
          bestOrder = order;
          bestExpert = expert;
        }
      }
      chosen[k] = u32(bestExpert);
      lastOrder = bestOrder;
      lastExpert = bestExpert;
    }
    let stats = Stats(boundedOf(vec4u(readOne(row, chosen[0]))).x, 1.0);
    var total = 0.0;
    for (var k = 0u; k < TOP_K; k++) {
      total += weightOf(row, chosen[k], stats);
    }
    for (var k = 0u; k < TOP_K; k++) {
      putChoice(row, k, chosen[k], weightOf(row, chosen[k], stats), total);
    }
  }
}
