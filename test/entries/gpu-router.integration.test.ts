// A router on a device that the caller has: the same choices as the reference, on buffers of the caller's too; errors
// that name the buffer; and the device stays the caller's.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { countWrongIds, GpuRouter, marginsOf, routeRow, type RoutedLogits } from '../../src/entries/router.ts';
import { openAdapter, type OpenAdapter } from '../../src/kernels/device/gpu.ts';

const STORAGE = 0x80;
const COPY_SRC = 0x04;
const COPY_DST = 0x08;
const MAP_READ = 0x01;

let open: OpenAdapter;
let gpu: GPUDevice;
beforeAll(async () => {
  open = await openAdapter(null);
  gpu = await open.adapter.requestDevice();
});
afterAll(async () => {
  gpu.destroy();
  await new Promise((resolve) => setImmediate(resolve));
  open.release();
});

function logitsOf(numTokens: number, numExperts: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: numTokens * numExperts }, (_, i) => Math.sin(i * i + 1) * 8);
}

function expectReference(
  router: GpuRouter,
  logits: Float32Array,
  { ids, weights }: RoutedLogits,
  bias?: Float32Array,
): void {
  const { routingFunction: given } = router;
  const { numExperts, topK } = given;
  for (let row = 0; row < logits.length / numExperts; row++) {
    const expected = routeRow(given, logits.subarray(row * numExperts, (row + 1) * numExperts), bias);
    const actual = ids.subarray(row * topK, (row + 1) * topK);
    expect([row, countWrongIds(actual, expected, marginsOf(given).ofChoices)]).toEqual([row, 0]);
    const first = [...actual].indexOf(expected.ids[0]!);
    expect(weights[row * topK + first]).toBeCloseTo(expected.weights[0]!, 4);
  }
}

describe('rows from the host', () => {
  test('softmax of 128 experts, and of few rows and many', async () => {
    const router = new GpuRouter(gpu, { numExperts: 128, topK: 8, scoring: 'softmax', renormalize: true });
    for (const numTokens of [1, 300]) {
      const logits = logitsOf(numTokens, 128);
      expectReference(router, logits, await router.route(logits));
    }
    await router.destroy();
  });

  test('sigmoid with a bias and groups', async () => {
    const bias = Float32Array.from({ length: 64 }, (_, i) => (i % 7) / 10);
    const groups = { count: 8, keep: 4, score: 'top2-sum' } as const;
    const router = new GpuRouter(
      gpu,
      { numExperts: 64, topK: 6, scoring: 'sigmoid', hasSelectionBias: true, groups, renormalize: true },
      { selectionBias: bias },
    );
    const logits = logitsOf(50, 64);
    expectReference(router, logits, await router.route(logits), bias);
    await router.destroy();
  });
});

test('buffers of the caller’s, two calls of different lengths in one pass; then the device goes on', async () => {
  const router = new GpuRouter(gpu, { numExperts: 32, topK: 4, scoring: 'softmax' }, { numTokens: 16 });
  const calls = await Promise.all(
    [16, 3].map(async (numTokens) => {
      const logits = logitsOf(numTokens, 32);
      const buffers = {
        logits: gpu.createBuffer({ size: logits.byteLength, usage: STORAGE | COPY_DST }),
        ids: gpu.createBuffer({ size: 16 * 4 * 4, usage: STORAGE | COPY_SRC }),
        weights: gpu.createBuffer({ size: 16 * 4 * 4, usage: STORAGE | COPY_SRC }),
      };
      gpu.queue.writeBuffer(buffers.logits, 0, logits);
      return { numTokens, logits, buffers, bound: await router.bind(buffers, numTokens) };
    }),
  );
  const encoder = gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  for (const { bound } of calls) bound.encode(pass);
  pass.end();
  gpu.queue.submit([encoder.finish()]);
  for (const { numTokens, logits, buffers, bound } of calls) {
    const ids = new Uint32Array(await read(buffers.ids));
    const weights = new Float32Array(await read(buffers.weights));
    expectReference(router, logits, { ids, weights });
    expect([...ids.subarray(numTokens * 4)]).toEqual(Array<number>((16 - numTokens) * 4).fill(0));
    bound.destroy();
  }
  await router.destroy();
  await expect(router.route(logitsOf(1, 32))).rejects.toMatchObject({ code: 'DEVICE_LOST' });
  // Another router on the same device: the first one's end was its own.
  const next = new GpuRouter(gpu, { numExperts: 8, topK: 2 });
  expectReference(next, logitsOf(2, 8), await next.route(logitsOf(2, 8)));
  await next.destroy();
});

test('an error of the caller’s own is not the router’s', async () => {
  const router = new GpuRouter(gpu, { numExperts: 8, topK: 2 });
  const heard = new Promise<string>((resolve) => {
    gpu.addEventListener('uncapturederror', ({ error }) => resolve(error.message), { once: true });
  });
  gpu.createBuffer({ size: 16, usage: 0 });
  expect(await heard).toMatch(/usage/i);
  expectReference(router, logitsOf(2, 8), await router.route(logitsOf(2, 8)));
  await router.destroy();
});

describe('bad input', () => {
  const given = { numExperts: 8, topK: 2 } as const;
  test('a function or a bias that cannot be', () => {
    expect(() => new GpuRouter(gpu, { numExperts: 8, topK: 9 })).toThrow(bad(/topK is 9/));
    expect(() => new GpuRouter(gpu, { ...given, hasSelectionBias: true })).toThrow(bad(/selection bias/));
    expect(() => new GpuRouter(gpu, given, { selectionBias: new Float32Array(8) })).toThrow(bad(/selection bias/));
  });

  test('buffers that do not fit, and rows that are none', async () => {
    const router = new GpuRouter(gpu, given);
    const usable = (size: number, usage: number = STORAGE): GPUBuffer => gpu.createBuffer({ size, usage });
    const buffers = { logits: usable(128), ids: usable(32), weights: usable(32) };
    await expect(router.bind(buffers, 0)).rejects.toEqual(bad(/numTokens is 0/));
    await expect(router.bind(buffers, 5)).rejects.toEqual(bad(/logits of the router is a buffer of 128 bytes/));
    await expect(router.bind({ ...buffers, ids: usable(16) }, 4)).rejects.toEqual(bad(/ids of the router/));
    const noStorage = { ...buffers, weights: usable(32, COPY_DST) };
    await expect(router.bind(noStorage, 4)).rejects.toEqual(bad(/weights of the router is no storage buffer/));
    await expect(router.route(new Float32Array(12))).rejects.toEqual(bad(/number of logits is 12/));
    await router.destroy();
  });
});

function bad(message: RegExp): Error {
  return expect.objectContaining({ code: 'BAD_VALUE', message: expect.stringMatching(message) }) as Error;
}

async function read(source: GPUBuffer): Promise<ArrayBuffer> {
  const readback = gpu.createBuffer({ size: source.size, usage: MAP_READ | COPY_DST });
  const encoder = gpu.createCommandEncoder();
  encoder.copyBufferToBuffer(source, 0, readback, 0, source.size);
  gpu.queue.submit([encoder.finish()]);
  await readback.mapAsync(0x1);
  const bytes = readback.getMappedRange().slice(0);
  readback.destroy();
  return bytes;
}
