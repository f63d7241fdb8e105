// Reductions over the LANES neighbouring lanes that share a row.

fn rowMax(value: i32) -> i32 {
  var result = value;
  if (LANES > 1u) { result = max(result, subgroupShuffleXor(result, 1u)); }
  if (LANES > 2u) { result = max(result, subgroupShuffleXor(result, 2u)); }
  if (LANES > 4u) { result = max(result, subgroupShuffleXor(result, 4u)); }
  if (LANES > 8u) { result = max(result, subgroupShuffleXor(result, 8u)); }
  if (LANES > 16u) { result = max(result, subgroupShuffleXor(result, 16u)); }
  return result;
}

fn rowAny(value: bool) -> bool {
  return rowMax(select(0, 1, value)) != 0;
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

// Over the first `count` lanes of a row, a constant, and so over each that many.
fn sumOver(count: u32, value: Sum) -> Sum {
  var result = value;
  if (count > 1u) { result += subgroupShuffleXor(result, 1u); }
  if (count > 2u) { result += subgroupShuffleXor(result, 2u); }
  if (count > 4u) { result += subgroupShuffleXor(result, 4u); }
  if (count > 8u) { result += subgroupShuffleXor(result, 8u); }
  if (count > 16u) { result += subgroupShuffleXor(result, 16u); }
  return result;
}
