// What a workgroup a row does with its K chosen experts at the head of `row_ids`.

var<workgroup> row_orders: array<i32, PADDED>;
var<workgroup> row_ids: array<u32, PADDED>;

fn loadRow(row: u32, thread: u32) {
  for (var i = thread; i < PADDED; i += THREADS) {
    row_orders[i] = EMPTY;
    row_ids[i] = i;
    if (i < NUM_EXPERTS) {
      row_orders[i] = orderOf(vec4u(readOne(row, i))).x;
    }
  }
}

fn isAhead(a: u32, b: u32) -> bool {
  return row_orders[a] > row_orders[b] || (row_orders[a] == row_orders[b] && row_ids[a] < row_ids[b]);
}

fn swap(a: u32, b: u32) {
  let order = row_orders[a];
  row_orders[a] = row_orders[b];
  row_orders[b] = order;
  let id = row_ids[a];
  row_ids[a] = row_ids[b];
  row_ids[b] = id;
}

fn finishRow(row: u32, thread: u32) {
  if (thread < TOP_K) {
    let stats = Stats(boundedOf(vec4u(readOne(row, row_ids[0]))).x, 1.0);
    var total = 0.0;
    for (var k = 0u; k < TOP_K; k++) {
      total += weightOf(row, row_ids[k], stats);
    }
    putChoice(row, thread, row_ids[thread], weightOf(row, row_ids[thread], stats), total);
  }
}
