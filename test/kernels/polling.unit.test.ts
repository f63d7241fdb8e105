// Rests between looks: lower bounds of time only; nothing here says how fast anything is.

import { expect, test } from 'vitest';
import { lookOften, restBetweenLooks } from '../../src/kernels/device/polling.ts';

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
    lookOften();
    clearImmediate(setImmediate(() => {}));
    expect(numRests).toBe(0);
    for (const until = performance.now() + 2; performance.now() < until;);
    clearImmediate(setImmediate(() => {}));
    expect(numRests).toBe(1);
  } finally {
    Atomics.wait = wait;
    globalThis.setImmediate = before;
  }
});
