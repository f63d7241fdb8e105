/** `shm-flock` on several ranks: all read the slot mapping, rank 0 alone reads rows, locks and writes. */

import { expect, test } from 'vitest';
import { designs } from '../../src/capture/designs.ts';
import type { SharedRows } from '../../src/capture/shm-flock/shared-rows.ts';
import type { WorkerConfig } from '../../src/contract/config.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { ModelRunner } from '../../src/worker/model-runner.ts';
import { BASE_ENGINE } from './scenarios.ts';

const model = modelPreset('tiny');
const engine = BASE_ENGINE;
const NUM_TOKENS = 6;

/** A table that counts which ranks open it and how often it is locked. */
function countedRows() {
  const table = new Int32Array(engine.numBlocks * engine.blockSize * model.numLayers * model.topK);
  const counts = { opened: 0, locked: 0, unlocked: 0 };
  const sharedRows = (): SharedRows => {
    counts.opened++;
    return { rows: table, lock: () => void counts.locked++, unlock: () => void counts.unlocked++, close: () => {} };
  };
  return { counts, sharedRows };
}

test.each([
  { rank: 0, opened: 1, locks: 1, rowBytes: NUM_TOKENS * model.numLayers * model.topK * 4 },
  { rank: 1, opened: 0, locks: 0, rowBytes: 0 },
])('rank $rank: $locks locks a step, $rowBytes bytes of rows', async ({ rank, opened, locks, rowBytes }) => {
  const { counts, sharedRows } = countedRows();
  const config: WorkerConfig = {
    rank,
    numRanks: 2,
    model,
    engine,
    design: 'shm-flock',
    device: 'cpu',
    adapter: null,
    queueDepth: 1,
    ballastMs: 0,
    sharedMemory: null,
    fault: null,
  };
  const design = designs['shm-flock'];
  const runner = await ModelRunner.create(new CpuDevice(), config, wgslKernels, design, { sharedRows });
  const core = new EngineCore(engine, design.engineHalf(model, engine, { sharedRows: countedRows().sharedRows }));
  core.addRequest({
    requestId: 'a',
    promptTokenIds: Uint32Array.from({ length: NUM_TOKENS }, (_, i) => i),
    sampling: {
      maxTokens: 1,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: true,
      routedExpertsPromptStart: 0,
    },
    priority: 0,
    arrivalTime: 0,
    cacheSalt: null,
  });
  await runner.execute(core.beginStep()!);
  expect(counts).toEqual({ opened, locked: locks, unlocked: locks });
  expect(runner.readbackBytes().capture).toBe(NUM_TOKENS * 4 + rowBytes);
  await runner.close();
});
