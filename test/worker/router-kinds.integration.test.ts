// Routers of both kinds on real threads and real WGSL: every delivered row is the oracle's (L2); what cannot be
// captured does not start (L4).

import { describe, expect, test } from 'vitest';
import { serveWorkload } from '../../src/cli/bench/serve-workload.ts';
import type { SessionConfig } from '../../src/host/design-session.ts';
import { DesignSession } from '../../src/host/design-session.ts';
import { Verifier } from '../../src/cli/bench/verify.ts';
import { designNames } from '../../src/capture/designs.ts';
import type { RouterConfig } from '../../src/contract/config.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { prepareAdapters } from '../../src/kernels/device/open-device.ts';
import { kernelsOf, requireRows } from '../../src/worker/router-kinds.ts';
import { workloads } from '../../src/workload/workloads.ts';

await prepareAdapters();

const sessionConfig = (modelName: string, router: RouterConfig): SessionConfig => ({
  numRanks: 1,
  model: modelPreset(modelName),
  engine: {
    blockSize: 4,
    numBlocks: 200,
    maxNumSeqs: 8,
    maxNumBatchedTokens: 64,
    maxModelLen: 256,
    policy: 'fcfs',
    asyncScheduling: true,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: false,
    watermark: 0,
    numSpeculativeTokens: 0,
  },
  device: 'webgpu',
  adapter: null,
  queueDepth: 2,
  ballastMs: 0,
  fault: null,
  router,
});

test.each([
  ['tiny', 'monolithic', 'deltas'],
  ['tiny', 'monolithic', 'shm-flock'],
  ['tiny-grouped', 'modular', 'deltas'],
  ['tiny-grouped', 'monolithic', 'block-store'],
  ['tiny-softmax-bias', 'modular', 'slot-store'],
] as const)('%s, %s router, %s: every row right', async (modelName, kind, design) => {
  const config = sessionConfig(modelName, kind === 'modular' ? { kind } : { kind, hasRoutingReplay: true });
  const { model } = config;
  const workload = workloads.rollout.generate({ seed: 3, vocabSize: model.vocabSize, requests: 8, lengthScale: 0.4 });
  const session = await DesignSession.start(design, config);
  try {
    const served = await serveWorkload({
      engine: new EngineCore(config.engine, session.engineHalf()),
      executor: session.executor,
      queueDepth: 2,
      workload,
      optedIn: workload.requests.map(() => true),
      mode: { kind: 'closed', concurrency: 8 },
      abortAfter: workload.requests.map(() => null),
    });
    const result = new Verifier(model).verify(served.requests);
    expect(result).toMatchObject({ wrongTokens: 0, rowsMismatched: 0, rowsImpossible: 0, firstProblem: null });
    expect(result.rowsVerified).toBeGreaterThan(50);
  } finally {
    await session.close();
  }
});

describe('a monolithic router without routing_replay_out', () => {
  const config = sessionConfig('tiny', { kind: 'monolithic', hasRoutingReplay: false });

  test('starts with off', async () => {
    await (await DesignSession.start('off', config)).close();
  });

  test('does not start with a design that returns rows, and says what to do', async () => {
    await expect(DesignSession.start('deltas', config)).rejects.toMatchObject({
      code: 'ROUTING_NOT_CAPTURED',
      message: expect.stringMatching(/"deltas".*routing_replay_out.*--router modular/),
    });
  });

  test('is refused before anything is started, design by design', () => {
    for (const design of designNames) {
      const ask = (): void => requireRows(config.router, design);
      if (design === 'off') expect(ask).not.toThrow();
      else expect(ask).toThrow('writes none');
      expect(() => requireRows({ kind: 'monolithic', hasRoutingReplay: true }, design)).not.toThrow();
      expect(() => requireRows(undefined, design)).not.toThrow();
    }
  });

  test('cannot replay a recording, whose rows come from a router of its own', () => {
    const recording = { name: 'r', numLayers: 2, numExperts: 8, topK: 2, requests: [] };
    const routing = { kind: 'replay', recording } as const;
    expect(() => kernelsOf({ routing, router: config.router! })).toThrow('router is monolithic; give modular');
    expect(() => kernelsOf({ routing })).not.toThrow();
  });
});
