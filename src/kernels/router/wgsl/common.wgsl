// What every router kernel starts with: the order of choices, packed keys.
//
// ORDER. The bits of an f32 as an i32 that grows with the value: +0 and −0 are one order, NaN and −∞ are one, the
// lowest.
//
//     −∞, NaN            −0 = +0                                +∞
//     −0x7f000001  …     0x007fffff   …               0x7fffffff
//
// KEY. The high bits of an order above the inverted id, so that one integer max finds the greatest choice and, of
// equals, the smallest id:
//
//     order without its low ID_BITS │ ID_MASK − id
//
// The bits cut off are all ones where a value has zeros there (bf16 has, in any f32). A row of such values is lossless:
// its keys are its choices in order. In any other row two choices that differ only in bits cut off are found out, and
// the row is selected anew with whole orders.

const MASK: i32 = i32(ID_MASK);
const LOWEST_ORDER: i32 = -0x7f000001;
const HIGHEST: i32 = 0x7fffffff;
// Under the key of any expert.
const EMPTY: i32 = i32(-0x80000000);
const ORDER_OF_ZERO: i32 = 0x7fffff;
const SMALLEST: f32 = 1.17549435e-38;

// The order, except that values which are no numbers have any order up to the lowest: the sum wraps for those without a
// sign.
fn looseOrderOf(bits: vec4u) -> vec4i {
  let sign = bitcast<vec4i>(bits) >> vec4u(31u);
  let magnitude = bitcast<vec4i>(bits & vec4u(0x7fffffffu));
  return (magnitude ^ sign) - sign + ORDER_OF_ZERO;
}

fn orderOf(bits: vec4u) -> vec4i {
  return max(looseOrderOf(bits), vec4i(LOWEST_ORDER));
}

// The value whose order it is.
fn valueOf(order: i32) -> f32 {
  let ordinal = order - ORDER_OF_ZERO;
  return bitcast<f32>(u32(abs(ordinal)) | (u32(ordinal) & 0x80000000u));
}

fn keysOf(orders: vec4i, first: u32) -> vec4i {
  return (orders & vec4i(~MASK)) | (vec4i(MASK - i32(first)) - vec4i(0, 1, 2, 3));
}

fn expertOf(key: i32) -> u32 {
  return ID_MASK - (u32(key) & ID_MASK);
}

// Logits as numbers to calculate with: NaN is −∞, all are bounded so that the difference of two is finite.
fn boundedOf(bits: vec4u) -> vec4f {
  let isNaN = (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u);
  let value = bitcast<vec4f>(select(bits, vec4u(0xff7fffffu), isNaN));
  return capped(clamp(value, vec4f(-1e38), vec4f(1e38)));
}
