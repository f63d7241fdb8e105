/** A worker is lost for good: every request ends, and nothing is held for steps that get no answer (L7, L8). */

import { expect, test } from 'vitest';
import { designs } from '../../src/capture/designs.ts';
import type { WorkerConfig } from '../../src/contract/config.ts';
import { RoutedExpertsError } from '../../src/contract/errors.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { EngineDriver } from '../../src/worker/engine-driver.ts';
import { InlineExecutor } from './inline-executor.ts';
import { ModelRunner } from '../../src/worker/model-runner.ts';
import { BASE_ENGINE } from '../capture/scenarios.ts';
import { memorySharedRows } from '../capture/memory-shared-rows.ts';

const model = modelPreset('tiny');
const engineConfig = { ...BASE_ENGINE, asyncScheduling: true, maxNumBatchedTokens: 4 };
const STEPS_BEFORE_THE_LOSS = 2;

test('every request ends with an error, and no step, block or row is left', async () => {
  const config: WorkerConfig = {
    rank: 0,
    numRanks: 1,
    model,
    engine: engineConfig,
    design: 'deltas',
    device: 'cpu',
    adapter: null,
    queueDepth: 2,
    ballastMs: 0,
    sharedMemory: null,
    fault: null,
  };
  const device = new CpuDevice();
  const runner = await ModelRunner.create(device, config, wgslKernels, designs.deltas, memorySharedRows(0));
  const executor = new InlineExecutor(runner, device.info);
  const execute = executor.execute.bind(executor);
  executor.execute = (step) =>
    step.stepId < STEPS_BEFORE_THE_LOSS
      ? execute(step)
      : Promise.reject(RoutedExpertsError.of('WORKER_LOST', 0, 'it is gone'));
  const half = designs.deltas.engineHalf(model, engineConfig, memorySharedRows(0))!;
  const engine = new EngineCore(engineConfig, half);
  const ends: unknown[] = [];
  const driver = new EngineDriver({
    engine,
    executor,
    queueDepth: 2,
    onOutput: ({ finishReason }) => void ends.push(finishReason),
  });
  for (const requestId of ['a', 'b']) {
    driver.add({
      requestId,
      promptTokenIds: Uint32Array.from({ length: 20 }, (_, i) => i),
      sampling: {
        maxTokens: 4,
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
  }
  await expect(driver.run()).rejects.toMatchObject({ code: 'WORKER_LOST' });
  expect(ends).toEqual(['error', 'error']);
  expect(engine.stats()).toMatchObject({ numRunning: 0, numWaiting: 0, numUsedBlocks: 0, numStepsInFlight: 0 });
  expect(half.liveCounts()).toEqual({ requests: 0, bytes: 0, cachedBytes: 0 });
});
