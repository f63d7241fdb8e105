/** The row blocks of `block-store`: how many are kept, and which go first (L7). */

import { expect, test } from 'vitest';
import { BlockArena } from '../../src/capture/block-store/block-arena.ts';
import { CapturedRequest } from '../../src/capture/block-store/captured-request.ts';
import { NOT_WANTED, writeMetadata } from '../../src/capture/block-store/messages.ts';
import { designs } from '../../src/capture/designs.ts';
import type { WorkerStep } from '../../src/contract/capture.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { ForwardPass } from '../../src/kernels/model/forward-pass.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { memorySharedRows } from './memory-shared-rows.ts';
import { BASE_ENGINE } from './scenarios.ts';

const model = modelPreset('tiny');
const engine = { ...BASE_ENGINE, numBlocks: 4 };
const { blockSize } = engine;
const BLOCK_BYTES = blockSize * rowShape(model).bytesPerRow;

test('the blocks of a request that ends go tail first: its beginning can be hit longest', () => {
  const arena = new BlockArena(3);
  const request = new CapturedRequest(0, arena, blockSize, 0);
  request.capture(0, 3 * blockSize, () => {});
  request.addHashes(0, ['a', 'ab', 'abc']);
  request.publish();
  request.release();
  expect(arena.numIdle).toBe(3);
  const isThere = (hash: string): boolean => {
    const block = arena.hold(hash);
    if (block !== null) arena.release(block);
    return block !== null;
  };
  arena.take();
  expect([isThere('abc'), isThere('ab'), isThere('a')]).toEqual([false, true, true]);
  arena.take();
  expect([isThere('ab'), isThere('a')]).toEqual([false, true]);
});

/** A step in which request `index` computes one block, whose hash is its index. */
function step(index: number): WorkerStep {
  return {
    stepId: index,
    numRequests: 1,
    numTokens: blockSize,
    firstRow: 0,
    requestIndices: Uint32Array.of(index),
    tokenStarts: Uint32Array.of(0),
    tokenCounts: Uint32Array.of(blockSize),
    draftCounts: Uint32Array.of(0),
    rowStarts: Uint32Array.of(0),
    optedIn: Uint8Array.of(0),
    promptStarts: Uint32Array.of(0),
    numPromptTokens: Uint32Array.of(blockSize),
    maxTokens: Uint32Array.of(1),
    slotMapping: Uint32Array.from({ length: blockSize }, (_, i) => i),
    captureMetadata: writeMetadata(0, 1, [
      { requestIndex: index, emitStart: NOT_WANTED, firstOrdinal: 0, hashes: Uint32Array.of(index) },
    ]),
  };
}

test('rows of blocks that no request holds are kept for twice the KV pool, and no more', async () => {
  const device = new CpuDevice();
  const forward = await ForwardPass.create(device, { model, engine, ballastMs: 0, kernels: wgslKernels });
  const { slotMapping, rows } = forward;
  const context = { rank: 0, device, model, engine, slotMapping, ...rows! };
  const half = designs['block-store'].workerHalf(context, memorySharedRows(0))!;
  const kept: number[] = [];
  for (let index = 0; index < 5 * engine.numBlocks; index++) {
    device.submit((commands) => void half.record(step(index), commands));
    half.collect(step(index), new Uint8Array(BLOCK_BYTES), Uint32Array.of(1));
    half.forget!([index], []);
    const { requests, bytes, cachedBytes } = half.liveCounts!();
    expect({ requests, bytes }).toEqual({ requests: 0, bytes: 0 });
    kept.push(cachedBytes! / BLOCK_BYTES);
  }
  expect(kept).toEqual(kept.map((_, i) => Math.min(i + 1, 2 * engine.numBlocks)));
  await device.destroy();
});
