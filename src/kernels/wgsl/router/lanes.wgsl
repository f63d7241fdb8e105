// Reductions over the LANES neighbouring lanes that share a row. WHOLE_SUBGROUP: all lanes of every subgroup do.

fn rowMax(value: i32) -> i32 {
  var result = value;
  if (LANES > 1u) { result = max(result, subgroupShuffleXor(result, 1u)); }
  if (LANES > 2u) { result = max(result, subgroupShuffleXor(result, 2u)); }
  if (LANES > 4u) { result = max(result, subgroupShuffleXor(result, 4u)); }
  if (LANES > 8u) { result = max(result, subgroupShuffleXor(result, 8u)); }
  if (LANES > 16u) { result = max(result, subgroupShuffleXor(result, 16u)); }
  return result;
}

// `rowMax` in one instruction, where a row has the whole subgroup. For code without branches only: a driver (NVIDIA 580) keeps the result in a
// register of the whole subgroup, and loses it in loops that branch. The shuffle gives each lane a copy.
fn rowMaxAtOnce(value: i32) -> i32 {
  if (WHOLE_SUBGROUP != 0u) {
    return subgroupShuffleXor(subgroupMax(value), 0u);
  }
  return rowMax(value);
}

fn rowMaxF32(value: f32) -> f32 {
  var result = value;
  if (LANES > 1u) { result = max(result, subgroupShuffleXor(result, 1u)); }
  if (LANES > 2u) { result = max(result, subgroupShuffleXor(result, 2u)); }
  if (LANES > 4u) { result = max(result, subgroupShuffleXor(result, 4u)); }
  if (LANES > 8u) { result = max(result, subgroupShuffleXor(result, 8u)); }
  if (LANES > 16u) { result = max(result, subgroupShuffleXor(result, 16u)); }
  return result;
}

fn rowSum(value: f32) -> f32 {
  var result = value;
  if (LANES > 1u) { result += subgroupShuffleXor(result, 1u); }
  if (LANES > 2u) { result += subgroupShuffleXor(result, 2u); }
  if (LANES > 4u) { result += subgroupShuffleXor(result, 4u); }
  if (LANES > 8u) { result += subgroupShuffleXor(result, 8u); }
  if (LANES > 16u) { result += subgroupShuffleXor(result, 16u); }
  return result;
}
