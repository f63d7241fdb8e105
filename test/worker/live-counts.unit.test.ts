// What the ranks of an engine hold is what each of them holds, added up: nothing hides behind rank 0 (L7).

import { expect, test } from 'vitest';
import { sumOfLiveCounts } from '../../src/worker/thread/live-counts.ts';

const rank = (n: number, cachedBytes?: number) => ({
  batchEntries: n,
  ringSlots: 10 * n,
  lentBuffers: 100 * n,
  capture: { requests: 1000 * n, bytes: 10_000 * n, ...(cachedBytes !== undefined && { cachedBytes }) },
});

test('all counts of all ranks are added up, rows with cached blocks among them', () => {
  expect(sumOfLiveCounts([rank(1, 5), rank(2, 7), rank(4)])).toEqual(rank(7, 12));
  expect(sumOfLiveCounts([rank(1), rank(2, 7)])).toEqual(rank(3, 7));
});

test('a design that keeps no rows with cached blocks has no such count', () => {
  expect(sumOfLiveCounts([rank(1), rank(2)])).toEqual(rank(3));
  expect(sumOfLiveCounts([rank(1, 0)])).toEqual(rank(1, 0));
});
