// The peak of what a half holds: known to a sixteenth, by counts that are few.

import { expect, test } from 'vitest';
import type { CaptureLiveCounts } from '../../src/contract/capture.ts';
import { HeldRowsPeak } from '../../src/worker/held-rows-peak.ts';

const BYTES_PER_ROW = 8;
const held = (bytes: number, cachedBytes?: number): CaptureLiveCounts => ({
  requests: 1,
  bytes,
  ...(cachedBytes === undefined ? {} : { cachedBytes }),
});

test('a half that gains the rows of each step, and loses them all at once', () => {
  for (let period = 100; period < 1600; period += 37) {
    const peak = new HeldRowsPeak(BYTES_PER_ROW);
    let rows = 0;
    let largest = 0;
    let numCounts = 0;
    for (let step = 1; step <= 5000; step++) {
      rows = step % period === 0 ? 0 : rows + 10;
      largest = Math.max(largest, rows * BYTES_PER_ROW);
      peak.afterStep(10, () => {
        numCounts++;
        return held(rows * BYTES_PER_ROW);
      });
    }
    const { requests, cached } = peak.take(held(0));
    expect(requests, `${period} steps`).toBeLessThanOrEqual(largest);
    expect(requests, `${period} steps`).toBeGreaterThan(largest * (1 - 1 / 16));
    expect(cached).toBeNull();
    // At first one in each step, then sixteen while as much comes again as was held.
    expect(numCounts, `${period} steps`).toBeLessThan(100 + (16 * 5000) / period);
  }
});

test('cached rows have a peak of their own; the last count is taken in, and the next peak begins anew', () => {
  const peak = new HeldRowsPeak(BYTES_PER_ROW);
  peak.afterStep(1, () => held(100, 40));
  expect(peak.take(held(0, 60))).toEqual({ requests: 100, cached: 60 });
  peak.afterStep(1, () => held(3));
  expect(peak.take(held(2))).toEqual({ requests: 3, cached: null });
});
