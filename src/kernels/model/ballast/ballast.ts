/**
 * `ballast.wgsl` in TypeScript: a chain of hashes, each waiting for the one before it, that takes time and does
 * nothing else.
 */

import { scramble } from '../mix/mix.ts';

/** @param ballast `[2]` how many links; the end of the chain is written behind it, so that no compiler drops it */
export function ballast(buffer: Uint32Array): void {
  const iterations = buffer[0]!;
  let x = iterations | 0;
  for (let i = 0; i < iterations; i++) x = scramble((x + i) | 0);
  buffer[1] = x;
}
