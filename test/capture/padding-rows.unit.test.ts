/**
 * Rows of other ranks and padding, before and behind a rank's own, never leave the device buffer (L3): every worker
 * half.
 */

import { describe, expect, test } from 'vitest';
import { designs } from '../../src/capture/designs.ts';
import type { WorkerStep } from '../../src/contract/capture.ts';
import type { EngineConfig, ModelConfig } from '../../src/contract/config.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { ForwardPass } from '../../src/kernels/model/forward-pass.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { writeMetadata } from '../../src/capture/block-store/messages.ts';
import { memorySharedRows } from './memory-shared-rows.ts';
import { BASE_ENGINE } from './scenarios.ts';

const model: ModelConfig = modelPreset('tiny');
const engine: EngineConfig = BASE_ENGINE;
const WIDTH = model.numLayers * model.topK;
/** In every row that is not this rank's. */
const FOREIGN = 7;
const FIRST_ROW = 3;

/** Two requests of 2 and 3 tokens, rows 3 … 7 of 12; the second reaches the end of its one output. */
const step: WorkerStep = {
  stepId: 0,
  numRequests: 2,
  numTokens: 5,
  firstRow: FIRST_ROW,
  requestIndices: Uint32Array.of(10, 11),
  tokenStarts: Uint32Array.of(0, 0),
  tokenCounts: Uint32Array.of(2, 3),
  draftCounts: Uint32Array.of(0, 0),
  rowStarts: Uint32Array.of(FIRST_ROW, FIRST_ROW + 2),
  optedIn: Uint8Array.of(1, 1),
  promptStarts: Uint32Array.of(0, 0),
  numPromptTokens: Uint32Array.of(2, 3),
  maxTokens: Uint32Array.of(1, 1),
  slotMapping: Uint32Array.of(4, 5, 8, 9, 10),
  captureMetadata: writeMetadata(0, 0, [
    { requestIndex: 10, emitStart: 0, firstOrdinal: 0, hashes: new Uint32Array(0) },
    { requestIndex: 11, emitStart: 0, firstOrdinal: 0, hashes: new Uint32Array(0) },
  ]),
};

/** Expert ids of the rank's i-th row: i in every place. */
const ownRows = Array.from({ length: step.numTokens }, (_, i) => Array.from({ length: WIDTH }, () => i));

describe.each(Object.values(designs).filter(({ name }) => name !== 'off'))('$name', (design) => {
  test('captures the rank’s own rows only', async () => {
    const device = new CpuDevice();
    const kernels = wgslKernels;
    const forward = await ForwardPass.create(device, { model, engine, ballastMs: 0, kernels });
    const { routedExperts, slotMapping, rows: rowSource } = forward;
    const seen = new Uint32Array(12 * WIDTH).fill(FOREIGN);
    for (const [i, row] of ownRows.entries()) seen.set(row, (FIRST_ROW + i) * WIDTH);
    device.write(routedExperts, 0, seen);
    const resources = memorySharedRows(engine.numBlocks * engine.blockSize * WIDTH);
    const half = design.workerHalf({ rank: 0, device, model, engine, slotMapping, ...rowSource! }, resources)!;

    const staging = device.createBuffer('staging', 4096, 'readback');
    let rows: readonly number[] = [];
    const reads = half.blockingReads;
    if (reads) {
      reads.takeBefore(step, new Uint8Array(step.slotMapping.slice().buffer));
      const range = reads.readAfter(step)!;
      device.submit((commands) => commands.copy(range.buffer, range.byteOffset ?? 0, staging, 0, range.byteLength));
      await device.read(staging, range.byteLength, (bytes) => reads.takeAfter(step, bytes));
      const shared = resources.sharedRows();
      shared.lock();
      rows = [...step.slotMapping].flatMap((slot) => [...shared.rows.subarray(slot * WIDTH, (slot + 1) * WIDTH)]);
      expect(shared.rows.includes(FOREIGN)).toBe(false);
      shared.unlock();
    } else {
      let byteLength = 0;
      device.submit((commands) => {
        const range = half.record(step, commands)!;
        ({ byteLength } = range);
        commands.copy(range.buffer, range.byteOffset ?? 0, staging, 0, byteLength);
      });
      const deltas = await device.read(staging, byteLength, (bytes) => half.collect(step, bytes, Uint32Array.of(1, 1)));
      rows = [...deltas!.rows.subarray(0, deltas!.numRows * WIDTH)];
    }
    expect(rows).toEqual(ownRows.flat());
    await device.destroy();
  });
});
