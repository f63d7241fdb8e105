/** Lengths in tokens, rounded or drawn. */

import type { Random } from './random.ts';

/** The nearest whole length, at least 1. */
export function wholeLength(length: number): number {
  return Math.max(1, Math.round(length));
}

/**
 * A length around `median`, log-normal-like: half of them are below it, a few are several times as long, and none is
 * outside `[median / 2^doublings, median · 2^doublings]`. The standard deviation of its logarithm is `0.43 ·
 * √doublings`.
 *
 * A product of factors `(1 + u)^±1` and not `exp(normal)`: `exp` and `log` may round differently from one JavaScript
 * engine to the next, and a workload must be the same on every machine.
 */
export function lengthAround(random: Random, median: number, doublings: number): number {
  let length = median;
  for (let factor = 0; factor < doublings; factor++) {
    const stretch = 1 + random.nextFloat();
    length = random.below(2) === 0 ? length * stretch : length / stretch;
  }
  return wholeLength(length);
}
