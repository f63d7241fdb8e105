// The whole path on real threads: every delivered token and row is the oracle's (L2), nothing is left after the drain
// (L7), and the loss of a device or a thread is one clear error, or nothing but a recomputation where restarts are
// allowed (L8).

import { afterEach, describe, expect, test } from 'vitest';
import { Verifier } from '../../src/cli/bench/verify.ts';
import { serveWorkload } from '../../src/cli/bench/serve-workload.ts';
import { DesignSession } from '../../src/host/design-session.ts';
import type { SessionConfig } from '../../src/host/design-session.ts';
import { LiveEngine } from '../../src/host/live-engine.ts';
import type { DesignName, DeviceKind, EngineConfig, WorkerFault } from '../../src/contract/config.ts';
import type { EngineCoreOutput } from '../../src/contract/engine-core-output.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { toEngineRequest } from '../../src/workload/workload.ts';
import { workloads } from '../../src/workload/workloads.ts';

const model = modelPreset('tiny');
const SEED = 7;

/** A pool of which a few requests need all: decoding preempts. */
const tightEngine = (queueDepth: number): EngineConfig => ({
  blockSize: 4,
  numBlocks: 70,
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
  numSpeculativeTokens: 0,
});

const sessionConfig = (device: DeviceKind, queueDepth: number, fault: WorkerFault | null = null): SessionConfig => ({
  numRanks: 1,
  model,
  engine: tightEngine(queueDepth),
  device,
  adapter: null,
  queueDepth,
  ballastMs: 0,
  fault,
});

const open: DesignSession[] = [];

async function start(design: DesignName, config: SessionConfig): Promise<DesignSession> {
  const session = await DesignSession.start(design, config);
  open.push(session);
  return session;
}

afterEach(async () => {
  for (const session of open.splice(0)) await session.close();
});

const workload = workloads.rollout.generate({ seed: SEED, vocabSize: model.vocabSize, requests: 24, lengthScale: 0.5 });

describe.each([
  // A software adapter takes seconds for each: here the default and the baseline, on the cpu device every pair.
  [
    'webgpu',
    [
      ['deltas', 2],
      ['shm-flock', 1],
    ],
  ],
  [
    'cpu',
    [
      ['deltas', 1],
      ['deltas', 2],
      ['shm-flock', 1],
      ['shm-flock', 2],
    ],
  ],
] as const)('on %s', (device, cases) => {
  test.each(cases)(
    '%s, queue depth %d: preemption and abort, all rows right, nothing left',
    async (design, queueDepth) => {
      const config = sessionConfig(device, queueDepth);
      const session = await start(design, config);
      const served = await serveWorkload({
        session,
        workload,
        optedIn: workload.requests.map((_, i) => i % 3 !== 0),
        mode: { kind: 'closed', concurrency: 12 },
        abortAfter: workload.requests.map((_, i) => (i % 5 === 4 ? i % 7 : null)),
      });
      const result = new Verifier(model).verify(served.requests);
      expect(result).toMatchObject({
        wrongTokens: 0,
        rowsMismatched: 0,
        requestsWithWrongCount: 0,
        firstProblem: null,
      });
      expect(result.rowsVerified).toBeGreaterThan(100);
      expect(served.engineStats.numPreemptions).toBeGreaterThan(0);
      expect(served.requests.every((request) => request.finishReason !== null)).toBe(true);
      expect(served.engineStats).toMatchObject({ numUsedBlocks: 0, numRunning: 0, numWaiting: 0 });
      expect(served.workerLiveCounts).toEqual({
        batchEntries: 0,
        ringSlots: 0,
        lentBuffers: 0,
        capture: { requests: 0, bytes: 0 },
      });
      // Steps in flight, and buffers on their way back, of 4 KiB each; shared memory is no message.
      const { inFlight } = served.rowBytesPeak;
      expect(inFlight! > 0).toBe(design === 'deltas');
      expect(inFlight).toBeLessThanOrEqual(2 * (queueDepth + 1) * 4096);
    },
  );
});

describe('a loss', () => {
  const faults: readonly WorkerFault[] = [
    { kind: 'lose-device', stepId: 6 },
    { kind: 'exit-thread', stepId: 6 },
  ];

  test.each(faults)('$kind without restarts: every request ends with an error, run rejects once', async (fault) => {
    const session = await start('deltas', sessionConfig('webgpu', 2, fault));
    const outputs: EngineCoreOutput[] = [];
    const engine = new LiveEngine(session, { onOutput: (output) => outputs.push(output) });
    for (const request of workload.requests) engine.add(toEngineRequest(request, true));
    engine.drain();
    const code = fault.kind === 'lose-device' ? 'DEVICE_LOST' : 'WORKER_LOST';
    await expect(engine.ended()).rejects.toMatchObject({ code });
    const ended = outputs.filter((output) => output.finishReason !== null);
    expect(ended.map((output) => output.requestId).toSorted()).toEqual(
      workload.requests.map((request) => request.requestId).toSorted(),
    );
    expect(engine.stats()).toMatchObject({ numUsedBlocks: 0, numRunning: 0, numWaiting: 0 });
  });

  // A thread that ends and is replaced, on WebGPU: worker-loss.integration.test.ts.
  test.each([
    ['lose-device', 'webgpu'],
    ['exit-thread', 'cpu'],
  ] as const)('%s with a restart, on %s: all tokens and rows are the oracle’s all the same', async (kind, device) => {
    const session = await start('deltas', sessionConfig(device, 2, { kind, stepId: 6 }));
    const served = await serveWorkload({
      session,
      workload,
      optedIn: workload.requests.map(() => true),
      mode: { kind: 'closed', concurrency: workload.requests.length },
      abortAfter: workload.requests.map(() => null),
      maxRestarts: 1,
    });
    const result = new Verifier(model).verify(served.requests);
    expect(result).toMatchObject({ wrongTokens: 0, rowsMismatched: 0, requestsWithWrongCount: 0, firstProblem: null });
    expect(served.requests.every((request) => request.finishReason === 'length')).toBe(true);
    expect(served.numRestarts).toBe(1);
  });
});
