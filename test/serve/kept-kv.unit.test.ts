/**
 * Kept blocks are given back exactly once: when they were released or their lease is over, and nobody is reading them
 * (L7, L9).
 */

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { KeptKv } from '../../src/serve/kv/kept-kv.ts';

const LEASE_MS = 1000;

let givenBack: number[] = [];
let kept = new KeptKv(() => undefined);

beforeEach(() => {
  vi.useFakeTimers();
  givenBack = [];
  kept = new KeptKv((requestIndex) => givenBack.push(requestIndex));
  kept.keep('r', {
    requestIndex: 7,
    blockIds: [1, 2],
    promptTokenIds: new Uint32Array(8),
    numTokens: 8,
    expiresAt: Date.now() + LEASE_MS,
    rows: null,
  });
});

afterEach(() => {
  vi.useRealTimers();
});

/** A reader that is in the middle of its read until `end` is called. */
function reader(): Readonly<{ end: () => Promise<void> }> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const read = kept.reading('r', () => promise);
  return {
    end: async () => {
      resolve();
      await read;
    },
  };
}

test('a release gives them back at once, and a second one nothing', () => {
  kept.release('r');
  kept.release('r');
  expect(givenBack).toEqual([7]);
  expect(kept.size).toBe(0);
  vi.advanceTimersByTime(2 * LEASE_MS);
  expect([givenBack, kept.numExpired]).toEqual([[7], 0]);
});

test('a lease that is over gives them back', () => {
  vi.advanceTimersByTime(LEASE_MS - 1);
  expect(givenBack).toEqual([]);
  vi.advanceTimersByTime(1);
  expect([givenBack, kept.numExpired]).toEqual([[7], 1]);
});

test.each(['released', 'expired'] as const)('blocks that are %s stay until their last reader is done', async (how) => {
  const [first, second] = [reader(), reader()];
  if (how === 'released') kept.release('r');
  else vi.advanceTimersByTime(LEASE_MS);
  expect(givenBack).toEqual([]);
  await first.end();
  expect(givenBack).toEqual([]);
  await second.end();
  expect(givenBack).toEqual([7]);
});

test('nobody begins to read what was released', async () => {
  const first = reader();
  expect(kept.get('r')?.requestIndex).toBe(7);
  kept.release('r');
  expect(kept.get('r')).toBeNull();
  await first.end();
});

test('a read that fails gives up its hold', async () => {
  const read = kept.reading('r', () => Promise.reject(new Error('no device')));
  kept.release('r');
  await expect(read).rejects.toThrow('no device');
  expect(givenBack).toEqual([7]);
});

test('blocks that are gone with their device are not given back, also not by a reader that ends later', async () => {
  const first = reader();
  const emptied = kept.emptied();
  kept.release('r');
  kept.forgetAll();
  await emptied;
  await first.end();
  kept.release('r');
  vi.advanceTimersByTime(2 * LEASE_MS);
  expect([givenBack, kept.size]).toEqual([[], 0]);
});
