// A full ring is back-pressure on the copy, never an overwrite (DESIGN §5): a slot belongs to one step from acquire to
// release.

import { expect, test } from 'vitest';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { ReadbackRing } from '../../src/worker/pipeline/readback-ring.ts';

test('hands out each slot once, and none when all are in use', () => {
  const ring = new ReadbackRing(new CpuDevice(), 2, 64);
  const a = ring.acquire()!;
  const b = ring.acquire()!;
  expect(a).not.toBe(b);
  expect(ring.inUse).toBe(2);
  expect(ring.acquire()).toBeNull();

  ring.release(b);
  expect(ring.acquire()).toBe(b);
  expect(ring.acquire()).toBeNull();

  ring.release(a);
  ring.release(b);
  expect(ring.inUse).toBe(0);
});
