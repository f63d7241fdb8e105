// Tokens come when a slower engine would have them: never sooner, in order, and the same for a seed.

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Pacer, type PaceOptions } from '../../src/serve/answer/pacer.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
});

afterEach(() => {
  vi.useRealTimers();
});

const options: PaceOptions = { timeToFirstTokenMs: 100, interTokenMs: 10, jitter: 0, seed: 1 };

/** When each of `numOutputs` outputs goes out that an engine has at once. */
function timesOf(given: PaceOptions, numOutputs: number): number[] {
  const pacer = new Pacer(given);
  const startedAt = performance.now();
  const times: number[] = [];
  pacer.begin('a');
  for (let i = 0; i < numOutputs; i++) {
    const hand = (): number => times.push(performance.now() - startedAt);
    pacer.hold('a', { numTokens: 1, isUrgent: false, isLast: i === numOutputs - 1, hand });
  }
  vi.advanceTimersByTime(10_000);
  return times;
}

test('the first token, then one after the other', () => {
  expect(timesOf(options, 4)).toEqual([100, 110, 120, 130]);
});

test('jitter stays inside its share, and is the seed’s', () => {
  const jittery = { ...options, jitter: 0.5 };
  const times = timesOf(jittery, 40);
  const gaps = times.slice(1).map((time, i) => time - times[i]!);
  expect(times[0]! >= 50 && times[0]! <= 151).toBe(true);
  expect(gaps.every((gap) => gap >= 5 && gap <= 16)).toBe(true);
  expect(new Set(gaps).size).toBeGreaterThan(5);
  expect(timesOf(jittery, 40)).toEqual(times);
  expect(timesOf({ ...jittery, seed: 2 }, 40)).not.toEqual(times);
});

test('an engine that is later than that is not held back; several tokens take several times', () => {
  const pacer = new Pacer(options);
  const seen: string[] = [];
  pacer.begin('a');
  vi.advanceTimersByTime(500);
  pacer.hold('a', { numTokens: 3, isUrgent: false, isLast: false, hand: () => seen.push('late') });
  expect(seen).toEqual(['late']);
  pacer.hold('a', { numTokens: 3, isUrgent: false, isLast: true, hand: () => seen.push('three') });
  vi.advanceTimersByTime(29);
  expect(seen).toEqual(['late']);
  vi.advanceTimersByTime(1);
  expect(seen).toEqual(['late', 'three']);
});

test('an end before its time hands out what is held back, and it; others wait on', () => {
  const pacer = new Pacer(options);
  const seen: string[] = [];
  for (const id of ['a', 'b']) {
    pacer.begin(id);
    pacer.hold(id, { numTokens: 1, isUrgent: false, isLast: false, hand: () => seen.push(id) });
  }
  pacer.hold('a', { numTokens: 0, isUrgent: true, isLast: true, hand: () => seen.push('aborted') });
  expect(seen).toEqual(['a', 'aborted']);
  pacer.flushAll();
  expect(seen).toEqual(['a', 'aborted', 'b']);
});
