// Baseline: a workgroup a row sorts all of it by a bitonic network in workgroup memory, and takes the first K.

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  for (var row = group.x; row < numRows(); row += groups.x) {
    loadRow(row, thread);
    workgroupBarrier();
    for (var size = 2u; size <= PADDED; size *= 2u) {
      for (var step = size / 2u; step > 0u; step /= 2u) {
        for (var i = thread; i < PADDED / 2u; i += THREADS) {
          let low = 2u * i - (i & (step - 1u));
          let high = low + step;
          let isDescending = (low & size) == 0u;
          if (isAhead(high, low) == isDescending) {
            swap(low, high);
          }
        }
        workgroupBarrier();
      }
    }
    finishRow(row, thread);
    workgroupBarrier();
  }
}
