/**
 * A monolithic router: with `routing_replay_out` every design returns what it returns behind a modular one, bit for
 * bit, and reads no more; without, a design that returns rows cannot be started (L4).
 */

import { describe, expect, test } from 'vitest';
import { designs } from '../../src/capture/designs.ts';
import type { WorkerConfig } from '../../src/contract/config.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { wgslKernelsFor } from '../../src/kernels/model/wgsl-kernels.ts';
import { ModelRunner } from '../../src/worker/model-runner.ts';
import { checkLaws } from './check-laws.ts';
import type { RanDesign } from './design-run.ts';
import { runDesign } from './design-run.ts';
import { memorySharedRows } from './memory-shared-rows.ts';
import { BASE_ENGINE, modes, scenarios } from './scenarios.ts';

const SCENARIOS = scenarios.filter(({ name }) =>
  ['plain', 'spec rejection', 'mixed opt-in', 'everything'].includes(name),
);
const withReplay = wgslKernelsFor({ kind: 'monolithic', hasRoutingReplay: true });
const withoutReplay = wgslKernelsFor({ kind: 'monolithic', hasRoutingReplay: false });

const config: WorkerConfig = {
  rank: 0,
  numRanks: 1,
  model: modelPreset('tiny'),
  engine: BASE_ENGINE,
  design: 'deltas',
  device: 'cpu',
  adapter: null,
  queueDepth: 1,
  ballastMs: 0,
  sharedMemory: null,
  fault: null,
};

/** All that a run gave out, in plain numbers. */
function answersOf({ requests, captureBytes }: RanDesign): unknown {
  const answers = requests.map(({ tokens, finish, rows }) => {
    const chunks = rows?.chunks.map((chunk) => (chunk === null ? null : [...chunk])) ?? null;
    return { tokens, finish, missing: rows?.missing ?? null, start: rows?.start ?? null, chunks };
  });
  return { answers, captureBytes };
}

test('the scenarios are there', () => {
  expect(SCENARIOS).toHaveLength(4);
});

describe.each(Object.values(designs))('$name', (design) => {
  describe.each(modes.slice(0, 2))('$name', (mode) => {
    test.each(SCENARIOS)('$name: rows as those of a modular router', async (scenario) => {
      for (let seed = 0; seed < 4; seed++) {
        const modular = await runDesign({ design, mode, scenario, seed });
        const monolithic = await runDesign({ design, mode, scenario, seed, kernels: withReplay });
        expect(checkLaws(design, monolithic).violations).toEqual([]);
        expect(answersOf(monolithic), `seed ${seed}`).toEqual(answersOf(modular));
      }
    });
  });

  test('odd K and more than 256 experts, scored and grouped', async () => {
    const groups = { count: 4, keep: 2, score: 'top2-sum' } as const;
    const routingFunction = { scoring: 'sigmoid', hasSelectionBias: true, groups } as const;
    const model = { ...modelPreset('tiny'), name: 'odd', numExperts: 320, topK: 5, numLayers: 3, routingFunction };
    const options = { design, mode: modes[1]!, scenario: SCENARIOS[0]!, seed: 1, model };
    const modular = await runDesign(options);
    const monolithic = await runDesign({ ...options, kernels: withReplay });
    expect(checkLaws(design, monolithic).violations).toEqual([]);
    expect(answersOf(monolithic)).toEqual(answersOf(modular));
  });

  test('without routing_replay_out the runner starts for off alone', async () => {
    const device = new CpuDevice();
    const resources = memorySharedRows(4096);
    const runner = ModelRunner.create(device, config, withoutReplay, design, resources);
    if (design.name === 'off') await expect(runner).resolves.toBeInstanceOf(ModelRunner);
    else await expect(runner).rejects.toMatchObject({ code: 'ROUTING_NOT_CAPTURED' });
    await device.destroy();
  });
});
