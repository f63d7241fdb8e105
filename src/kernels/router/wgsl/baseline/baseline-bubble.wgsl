// Baseline: a workgroup a row, K rounds of bubble sort with a barrier after each compare.

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  for (var row = group.x; row < numRows(); row += groups.x) {
    loadRow(row, thread);
    workgroupBarrier();
    for (var k = 0u; k < TOP_K; k++) {
      for (var i = NUM_EXPERTS - 1u; i > k; i--) {
        if (thread == 0u && isAhead(i, i - 1u)) {
          swap(i, i - 1u);
        }
        workgroupBarrier();
      }
    }
    finishRow(row, thread);
    workgroupBarrier();
  }
}
