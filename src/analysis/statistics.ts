/** Arithmetic that several analyses share. What is not defined is `null`, never NaN. */

export function quotient(numerator: number, denominator: number): number | null {
  return denominator === 0 ? null : numerator / denominator;
}

export function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

export function mean(values: ArrayLike<number> & Iterable<number>): number | null {
  return quotient(sum(values), values.length);
}

/** The greatest value; 0 of none. */
export function greatest(values: Iterable<number>): number {
  let found = -Infinity;
  for (const value of values) if (value > found) found = value;
  return found === -Infinity ? 0 : found;
}

/** The mean of the two in the middle where there are two. */
export function median(values: Iterable<number>): number | null {
  const sorted = Float64Array.from(values).sort();
  if (sorted.length === 0) return null;
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Indices by value, descending; equal values by index, ascending. */
export function byValueDescending(values: ArrayLike<number>): number[] {
  return Array.from(values, (_, i) => i).sort((a, b) => values[b]! - values[a]! || a - b);
}

/** Above it sorting all is faster. */
const FEW = 32;

/** The indices of the `count` greatest values, greatest first; equal values by index, ascending. */
export function topIndices(values: ArrayLike<number>, count: number): number[] {
  if (count > FEW) return byValueDescending(values).slice(0, count);
  const top: number[] = [];
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (top.length === count && !(value > values[top[count - 1]!]!)) continue;
    if (top.length === count) top.pop();
    let place = top.length;
    while (place > 0 && value > values[top[place - 1]!]!) place--;
    top.splice(place, 0, i);
  }
  return top;
}
