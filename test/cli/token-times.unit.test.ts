// What a client waits for: events in, waits and their percentiles out.

import { expect, test } from 'vitest';
import { TokenTimes } from '../../src/cli/bench/measure/token-times.ts';
import { percentiles } from '../../src/cli/bench/report/cell-report.ts';

test('the first token is waited for from the arrival, each later one from the one before', () => {
  const times = new TokenTimes(2);
  times.added(0, 100);
  times.added(1, 101);
  times.tokensCame(1, 105);
  times.tokensCame(0, 110);
  times.tokensCame(1, 108);
  times.tokensCame(0, 125);
  times.tokensCame(0, 126);
  expect(times.ttftMs).toEqual([4, 10]);
  expect(times.itlMs).toEqual([3, 15, 1]);
});

test('a request that arrives at moment 0, and one that gets its first token at moment 0', () => {
  const times = new TokenTimes(2);
  times.added(0, 0);
  times.tokensCame(0, 0);
  times.tokensCame(0, 2);
  expect([times.ttftMs, times.itlMs]).toEqual([[0], [2]]);
});

test('a request without a token has no wait', () => {
  const times = new TokenTimes(1);
  times.added(0, 7);
  expect([times.ttftMs, times.itlMs]).toEqual([[], []]);
});

test('percentiles of all waits; not a number without one', () => {
  const waits = Array.from({ length: 101 }, (_, i) => 100 - i);
  expect(percentiles(waits)).toEqual({ p50: 50, p99: 99 });
  expect(percentiles([])).toEqual({ p50: Number.NaN, p99: Number.NaN });
});
