// A full ring is back-pressure on the copy, never an overwrite (DESIGN §5): a slot belongs to one step from acquire to release.

import { expect, test } from 'vitest';
import { CpuDevice } from '../../src/kernels/cpu-device.ts';
import { ReadbackRing } from '../../src/worker/readback-ring.ts';

test('hands out each slot once, holds the next step back when full, serves waiters in order', async () => {
  const ring = new ReadbackRing(new CpuDevice(), 2, 64);
  const a = await ring.acquire();
  const b = await ring.acquire();
  expect(a).not.toBe(b);
  expect(ring.inUse).toBe(2);

  const order: string[] = [];
  const c = Promise.resolve(ring.acquire()).then((slot) => (order.push('c'), slot));
  const d = Promise.resolve(ring.acquire()).then((slot) => (order.push('d'), slot));
  await Promise.resolve();
  expect(order).toEqual([]);

  ring.release(b);
  expect(await c).toBe(b);
  expect(order).toEqual(['c']);
  ring.release(a);
  expect(await d).toBe(a);
  expect(order).toEqual(['c', 'd']);
  expect(ring.inUse).toBe(2);

  ring.release(a);
  ring.release(b);
  expect(ring.inUse).toBe(0);
});
