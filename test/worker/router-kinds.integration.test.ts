// Routers of both kinds on real threads and real WGSL: every delivered row is the oracle's (L2); what cannot be
// captured does not start (L4).

import { describe, expect, test } from 'vitest';
import { serveWorkload } from '../../src/cli/bench/serve-workload.ts';
import type { SessionConfig } from '../../src/host/design-session.ts';
import { DesignSession } from '../../src/host/design-session.ts';
import { Verifier } from '../../src/cli/bench/verify.ts';
import { designNames } from '../../src/capture/designs.ts';
import type { DeviceKind, RouterConfig, RouterKernels } from '../../src/contract/config.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { kernelShape } from '../../src/kernels/model/kernel-shape.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { MODULAR } from '../../src/kernels/model/route/engine-router.ts';
import { kernelsOf, requireRows } from '../../src/worker/router-kinds.ts';
import { workloads } from '../../src/workload/workloads.ts';

const modular = (kernels: RouterKernels): RouterConfig => ({ kind: 'modular', kernels });
const monolithic = (hasRoutingReplay: boolean): RouterConfig => ({ kind: 'monolithic', hasRoutingReplay });

const sessionConfig = (modelName: string, router: RouterConfig, device: DeviceKind = 'webgpu'): SessionConfig => ({
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
  device,
  adapter: null,
  queueDepth: 2,
  ballastMs: 0,
  fault: null,
  router,
});

// A software adapter takes seconds for each. Modular routers of tiny-grouped on WebGPU:
// test/host/router-kernels.integration.test.ts.
test.each([
  ['tiny', monolithic(true), 'deltas', 'webgpu'],
  ['tiny', monolithic(true), 'shm-flock', 'webgpu'],
  ['tiny-grouped', modular('auto'), 'deltas', 'cpu'],
  ['tiny-grouped', modular('gated'), 'deltas', 'cpu'],
  ['tiny-grouped', monolithic(true), 'block-store', 'webgpu'],
  ['tiny-softmax-bias', modular('fused'), 'slot-store', 'cpu'],
  ['tiny-softmax-bias', modular('gated'), 'slot-store', 'webgpu'],
] as const)('%s, router %o, %s, on %s: every row right', async (modelName, router, design, device) => {
  const config = sessionConfig(modelName, router, device);
  const { model } = config;
  const workload = workloads.rollout.generate({ seed: 3, vocabSize: model.vocabSize, requests: 8, lengthScale: 0.4 });
  const session = await DesignSession.start(design, config);
  try {
    const served = await serveWorkload({
      session,
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
  const config = sessionConfig('tiny', monolithic(false));

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
      expect(() => requireRows(monolithic(true), design)).not.toThrow();
      expect(() => requireRows(undefined, design)).not.toThrow();
    }
  });

  test('cannot replay a recording, whose rows come from a router of its own', () => {
    const recording = { name: 'r', numLayers: 2, numExperts: 8, topK: 2, requests: [] };
    const routing = { kind: 'replay', recording } as const;
    expect(() => kernelsOf({ routing, router: config.router! })).toThrow('router is monolithic; give modular');
    expect(() => kernelsOf({ routing, router: modular('gated') })).toThrow('router kernels is gated; give auto');
    expect(() => kernelsOf({ routing, router: modular('auto') })).not.toThrow();
    expect(() => kernelsOf({ routing })).not.toThrow();
  });
});

describe('the kernels of a router', () => {
  const { model, engine } = sessionConfig('tiny-grouped', MODULAR);
  const info = { ...new CpuDevice().info, isSoftware: false, subgroupSizes: [32, 32] } as const;
  const namesOf = (router: RouterConfig): readonly (string | undefined)[] => {
    const { gate, route } = kernelsOf({ router })(model, kernelShape(model, engine), info);
    return [gate?.kernel.name, route.kernel.name];
  };

  test('are those that were asked for', () => {
    expect(namesOf(modular('gated'))).toEqual([expect.stringMatching(/^gate\//), expect.stringMatching(/-subgroup-/)]);
    expect(namesOf(modular('fused'))).toEqual([undefined, expect.stringMatching(/-rounds-.*-fused-/)]);
    expect(namesOf(modular('auto'))).toEqual(namesOf(modular('fused')));
    expect(namesOf(MODULAR)).toEqual(namesOf(modular('auto')));
  });
});
