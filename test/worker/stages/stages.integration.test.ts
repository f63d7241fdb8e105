// Pipeline stages on real threads, up to P steps in flight: every token and row is the oracle's (L2), nothing is left
// after the drain (L7), a stage that is lost takes all with it and no request (L8), and nobody who asked for no rows
// pays for any (L5).

import { afterEach, expect, test } from 'vitest';
import { Verifier } from '../../../src/cli/bench/verify.ts';
import { serveWorkload, type ServeResult } from '../../../src/cli/bench/serve-workload.ts';
import type { DeviceKind, ModelConfig, WorkerFault } from '../../../src/contract/config.ts';
import { DesignSession, type SessionConfig } from '../../../src/host/design-session.ts';
import { modelPreset } from '../../../src/kernels/model/model-presets.ts';
import type { Workload } from '../../../src/workload/workload.ts';
import { workloads } from '../../../src/workload/workloads.ts';
import { engineConfig } from '../../kernels/harness.ts';

const dense = modelPreset('tiny-dense');
const grouped: ModelConfig = { ...modelPreset('tiny-grouped'), numLayers: 3 };
const workload = workloads.rollout.generate({ seed: 7, vocabSize: 97, requests: 12, lengthScale: 0.3 });
/** A software adapter takes its time for each step. */
const short = workloads.rollout.generate({ seed: 7, vocabSize: 97, requests: 4, lengthScale: 0.15 });

const open: DesignSession[] = [];

afterEach(async () => {
  for (const session of open.splice(0)) await session.close();
});

type Case = Readonly<{
  device: DeviceKind;
  model: ModelConfig;
  split: readonly number[];
  numRanks: number;
  requests?: Workload;
  fault?: WorkerFault;
  optsIn?: (request: number) => boolean;
}>;

async function serve(given: Case): Promise<ServeResult> {
  const { device, model, split, numRanks, requests = workload, fault = null, optsIn = (i) => i % 3 !== 0 } = given;
  const numStages = split.length;
  const pool = { numBlocks: 50, maxNumSeqs: 12, maxModelLen: 160 };
  const config: SessionConfig = {
    numRanks,
    model,
    engine: engineConfig({ ...pool, pipelineParallelSize: numStages }),
    device,
    adapter: null,
    queueDepth: numStages,
    ballastMs: 0,
    fault,
    pipelineSplit: split,
  };
  const session = await DesignSession.start('deltas', config);
  open.push(session);
  return serveWorkload({
    session,
    workload: requests,
    optedIn: requests.requests.map((_, i) => optsIn(i)),
    mode: { kind: 'closed', concurrency: 12 },
    abortAfter: requests.requests.map((_, i) => (fault === null && i % 5 === 4 ? i % 7 : null)),
    maxRestarts: fault === null ? 0 : 1,
  });
}

function expectRight(served: ServeResult, model: ModelConfig): void {
  const result = new Verifier(model).verify(served.requests);
  expect(result).toMatchObject({ wrongTokens: 0, rowsMismatched: 0, requestsWithWrongCount: 0, firstProblem: null });
  expect(result.rowsVerified).toBeGreaterThan(40);
  expect(result.rowsMissingOfFinished).toBe(0);
  expect(served.requests.every(({ finishReason }) => finishReason !== null)).toBe(true);
  expect(served.transfers.captureDeviceToHost).toBeLessThanOrEqual(served.wantedRowBytes);
  expect(served.engineStats).toMatchObject({ numUsedBlocks: 0, numRunning: 0, numWaiting: 0 });
  expect(served.workerLiveCounts).toEqual({
    batchEntries: 0,
    ringSlots: 0,
    lentBuffers: 0,
    capture: { requests: 0, bytes: 0 },
  });
}

test.each<readonly [string, Case]>([
  ['two stages on webgpu', { device: 'webgpu', model: grouped, split: [2, 1], numRanks: 2, requests: short }],
  ['three on cpu, the first without a router', { device: 'cpu', model: dense, split: [2, 1, 3], numRanks: 3 }],
  ['two of two ranks each', { device: 'cpu', model: grouped, split: [1, 2], numRanks: 4 }],
])('%s: preemption and abort, all rows right, nothing left', async (_, given) => {
  const served = await serve(given);
  expectRight(served, given.model);
  expect(served.engineStats.numPreemptions > 0).toBe(given.requests === undefined);
});

test.each(['exit-thread', 'lose-device'] as const)(
  '%s in the last stage, with a restart: all is right',
  async (kind) => {
    const fault = { kind, rank: 1, stepId: 6 };
    const served = await serve({ device: 'cpu', model: grouped, split: [2, 1], numRanks: 2, fault });
    expectRight(served, grouped);
    expect(served.numRestarts).toBe(1);
  },
);

test('nobody asks for rows: none leaves a stage', async () => {
  const served = await serve({ device: 'cpu', model: dense, split: [3, 3], numRanks: 2, optsIn: () => false });
  expect(served.transfers.captureDeviceToHost).toBe(0);
});
