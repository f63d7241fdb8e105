/**
 * The switches of the RFC's experiments: what is switched off is not done, the hook writes its buffer all the same, and
 * every row is declared missing (L4), whatever lies in shared memory.
 */

import { describe, expect, test } from 'vitest';
import { designs } from '../../src/capture/designs.ts';
import type { SharedRows } from '../../src/capture/shm-flock/shared-rows.ts';
import type { ShmFlockSwitches, WorkerConfig } from '../../src/contract/config.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { ModelRunner } from '../../src/worker/model-runner.ts';
import { BASE_ENGINE } from './scenarios.ts';

const model = modelPreset('tiny');
const engine = BASE_ENGINE;
const design = designs['shm-flock'];
const NUM_PROMPT_TOKENS = 6;

/** What one request of two output tokens came to. */
type Outcome = Readonly<{ rows: RoutedRows; saves: number; reads: number; captureBytes: number }>;

async function serve(shmFlock: ShmFlockSwitches): Promise<Outcome> {
  const table = new Int32Array(engine.numBlocks * engine.blockSize * model.numLayers * model.topK);
  const locks = { worker: 0, engine: 0 };
  const sharedRows = (half: 'worker' | 'engine') => (): SharedRows => ({
    rows: table,
    lock: () => void locks[half]++,
    unlock: () => {},
    close: () => {},
  });
  const config: WorkerConfig = {
    rank: 0,
    numRanks: 1,
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
  const resources = { sharedRows: sharedRows('worker'), shmFlock };
  const runner = await ModelRunner.create(new CpuDevice(), config, wgslKernels, design, resources);
  const core = new EngineCore(engine, design.engineHalf(model, engine, { sharedRows: sharedRows('engine'), shmFlock }));
  core.addRequest({
    requestId: 'a',
    promptTokenIds: Uint32Array.from({ length: NUM_PROMPT_TOKENS }, (_, i) => i),
    sampling: {
      maxTokens: 2,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: true,
      routedExpertsPromptStart: 2,
    },
    priority: 0,
    arrivalTime: 0,
    cacheSalt: null,
  });
  const outputs = [];
  for (let i = 0; i < 2; i++) outputs.push(...core.finishStep(await runner.execute(core.beginStep()!)));
  const captureBytes = runner.readbackBytes().capture;
  await runner.close();
  return { rows: outputs.at(-1)!.routedExperts!, saves: locks.worker, reads: locks.engine, captureBytes };
}

describe('shm-flock', () => {
  test('saves every step and reads every request that stops', async () => {
    const { rows, saves, reads, captureBytes } = await serve({ save: true, read: true });
    expect({ saves, reads, missing: rows.missing }).toEqual({ saves: 2, reads: 1, missing: [] });
    expect(captureBytes).toBeGreaterThan(0);
  });

  test.each([
    [{ save: false, read: true }, 0, 1],
    [{ save: true, read: false }, 2, 0],
    [{ save: false, read: false }, 0, 0],
  ] as const)('with %o: every row is missing', async (switches, saves, reads) => {
    const outcome = await serve(switches);
    expect([outcome.saves, outcome.reads]).toEqual([saves, reads]);
    expect(outcome.captureBytes > 0).toBe(switches.save);
    expect(outcome.rows).toMatchObject({ start: 2, count: 5, missing: [[2, 7]] });
  });
});
