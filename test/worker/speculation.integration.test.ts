/**
 * Speculative decoding on real threads: drafts are made and verified on the device, tokens and rows are the oracle's
 * whatever share of the drafts is right, and the engine counts what was drafted and accepted.
 */

import { afterEach, describe, expect, test } from 'vitest';
import { designNames } from '../../src/capture/designs.ts';
import { serveWorkload } from '../../src/cli/bench/serve-workload.ts';
import { Verifier } from '../../src/cli/bench/verify.ts';
import type { DesignName, DeviceKind, EngineConfig } from '../../src/contract/config.ts';
import type { EngineStats } from '../../src/engine/engine-core.ts';
import { DesignSession } from '../../src/host/design-session.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { workloads } from '../../src/workload/workloads.ts';

const model = modelPreset('tiny');
const workload = workloads.rollout.generate({ seed: 7, vocabSize: model.vocabSize, requests: 24, lengthScale: 0.5 });
const open: DesignSession[] = [];

afterEach(async () => {
  for (const session of open.splice(0)) await session.close();
});

type Settings = Readonly<{
  design: DesignName;
  device: DeviceKind;
  queueDepth: number;
  draftAcceptanceRate?: number;
  /** Few enough that decoding preempts. */
  numBlocks?: number;
}>;

async function serve({ design, device, queueDepth, numBlocks = 75, ...drafts }: Settings): Promise<EngineStats> {
  const engine: EngineConfig = {
    blockSize: 4,
    numBlocks,
    maxNumSeqs: 12,
    maxNumBatchedTokens: 64,
    maxModelLen: 256,
    policy: 'fcfs',
    asyncScheduling: queueDepth > 1,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: false,
    watermark: 0,
    numSpeculativeTokens: 3,
  };
  const common = { numRanks: 1, model, engine, device, adapter: null, queueDepth, ballastMs: 0, fault: null };
  const session = await DesignSession.start(design, { ...common, ...drafts });
  open.push(session);
  const served = await serveWorkload({
    session,
    workload,
    optedIn: workload.requests.map((_, i) => design !== 'off' && i % 3 !== 0),
    mode: { kind: 'closed', concurrency: 12 },
    abortAfter: workload.requests.map((_, i) => (i % 5 === 4 ? i % 7 : null)),
  });
  const result = new Verifier(model).verify(served.requests);
  expect(result).toMatchObject({ wrongTokens: 0, rowsMismatched: 0, requestsWithWrongCount: 0, firstProblem: null });
  if (design !== 'off') expect(result.rowsVerified).toBeGreaterThan(100);
  expect(served.requests.every((request) => request.finishReason !== null)).toBe(true);
  expect(served.engineStats).toMatchObject({ numUsedBlocks: 0, numRunning: 0, numWaiting: 0 });
  expect(served.workerLiveCounts).toMatchObject({ batchEntries: 0, ringSlots: 0, capture: { requests: 0, bytes: 0 } });
  return served.engineStats;
}

function expectSomeAccepted({ numPreemptions, numDrafts, numDraftTokens, numAcceptedTokens }: EngineStats): void {
  expect(numPreemptions).toBeGreaterThan(0);
  expect(numAcceptedTokens).toBeGreaterThan(0);
  expect(numAcceptedTokens).toBeLessThan(numDraftTokens);
  expect(numDraftTokens).toBeLessThanOrEqual(3 * numDrafts);
}

describe.each([1, 2])('queue depth %i, with preemption and abort', (queueDepth) => {
  test.each(designNames)('%s on the CPU', async (design) => {
    expectSomeAccepted(await serve({ design, device: 'cpu', queueDepth }));
  });

  test('deltas on WebGPU', async () => {
    expectSomeAccepted(await serve({ design: 'deltas', device: 'webgpu', queueDepth }));
  });
});

test.each([
  [0, 'cpu'],
  [1, 'webgpu'],
] as const)('the rate %d at which drafts are right reaches the device, %s', async (draftAcceptanceRate, device) => {
  // Without a preemption: a request that comes back has no drafts of its own at first.
  const settings = { design: 'deltas', device, queueDepth: 3, numBlocks: 2000, draftAcceptanceRate } as const;
  const { numDraftTokens, numAcceptedTokens } = await serve(settings);
  expect(numDraftTokens).toBeGreaterThan(100);
  expect(numAcceptedTokens).toBe(draftAcceptanceRate * numDraftTokens);
});
