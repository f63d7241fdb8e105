// Rests between looks: lower bounds of time only; nothing here says how fast anything is.

import { expect, test } from 'vitest';
import { LookTimes } from '../../src/kernels/device/look-times.ts';
import { lookTimes, restBetweenLooks } from '../../src/kernels/device/polling.ts';

const NUM_LOOKS = 40;

/** Turns of the event loop, one behind another, as the addon takes them. */
function turns(count: number): Promise<unknown[]> {
  return new Promise((resolve) => {
    const seen: unknown[] = [];
    const look = (turn: number): void => {
      seen.push(turn);
      if (seen.length === count) resolve(seen);
      else setImmediate(look, turn + 1);
    };
    setImmediate(look, 0);
  });
}

test('a thread rests between two looks, in whose order and arguments nothing changes', async () => {
  const { setImmediate: before } = globalThis;
  try {
    restBetweenLooks();
    const begun = performance.now();
    expect(await turns(NUM_LOOKS)).toEqual(Array.from({ length: NUM_LOOKS }, (_, turn) => turn));
    expect(performance.now() - begun).toBeGreaterThanOrEqual(NUM_LOOKS * 0.05);
  } finally {
    globalThis.setImmediate = before;
  }
});

test('just after a read has begun it does not', () => {
  const { setImmediate: before } = globalThis;
  const { wait } = Atomics;
  let numRests = 0;
  Atomics.wait = ((...args: Parameters<typeof wait>) => {
    numRests++;
    return wait(...args);
  }) as typeof wait;
  try {
    restBetweenLooks();
    lookTimes.began(performance.now());
    clearImmediate(setImmediate(() => {}));
    expect(numRests).toBe(0);
    for (const until = performance.now() + 2; performance.now() < until;);
    clearImmediate(setImmediate(() => {}));
    expect(numRests).toBe(1);
  } finally {
    lookTimes.ended(performance.now());
    Atomics.wait = wait;
    globalThis.setImmediate = before;
  }
});

test('a thread looks seldom before a read can end, often when it may, and always hears what is sent to it', () => {
  const times = new LookTimes();
  expect(times.restBefore(5)).toBe(0.05);
  times.began(10);
  times.began(10.5);
  times.ended(20);
  times.ended(32);
  // One took 10 ms; the other 12 ms, behind it.
  times.began(100);
  times.began(105);
  expect(times.restBefore(105.5)).toBe(0);
  expect(times.restBefore(106.5)).toBe(1);
  expect(times.restBefore(107.5)).toBeCloseTo(0.5);
  expect(times.restBefore(108)).toBe(0.05);
  expect(times.restBefore(500)).toBe(0.05);
  times.ended(110);
  expect(times.restBefore(110)).toBe(1);
  expect(times.restBefore(117.5)).toBeCloseTo(0.5);
  times.ended(120);
  expect(times.restBefore(120)).toBe(0.05);
});

test('a short read long ago is forgotten', () => {
  const times = new LookTimes();
  let now = 0;
  for (const duration of [2, ...Array.from({ length: 8 }, () => 50)]) {
    now += 100;
    times.began(now);
    times.ended(now + duration);
  }
  times.began(now + 100);
  expect(times.restBefore(now + 130)).toBe(1);
});
