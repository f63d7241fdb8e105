/**
 * Every kernel, for every preset, in every router variant, compiled and bound on Dawn's null backend: WGSL and
 * pipelines are checked on any machine. A device whose error scopes do not end empty is lost, which the last test looks
 * at.
 */

import { describe, expect, test } from 'vitest';
import type { Kernel } from '../../src/contract/device.ts';
import { kernelShape } from '../../src/kernels/model/kernel-shape.ts';
import { MODEL_NAMES, modelPreset } from '../../src/kernels/model/model-presets.ts';
import type { RouterConfig } from '../../src/contract/config.ts';
import { engineRouters } from '../../src/kernels/model/route/engine-router.ts';
import { wgslKernelsWith } from '../../src/kernels/model/wgsl-kernels.ts';
import { engineConfig } from './harness.ts';
import { nullDevice } from './null-device.ts';

const { validate, expectNotLost } = nullDevice();

const ROUTERS: readonly RouterConfig[] = [
  { kind: 'modular' },
  { kind: 'monolithic', hasRoutingReplay: true },
  { kind: 'monolithic', hasRoutingReplay: false },
];

const SUBGROUP_SIZES = [null, [32, 32], [4, 4], [8, 32], [64, 128]] as const;

describe.each(MODEL_NAMES)('%s', (name) => {
  test.each([0, 3])('every kernel compiles with %i speculative tokens', async (numSpeculativeTokens) => {
    for (const gateWidth of numSpeculativeTokens === 0 ? [8, 16] : [8]) {
      const model = modelPreset(name, gateWidth);
      const shape = kernelShape(model, engineConfig({ numSpeculativeTokens, maxNumSeqs: 256, maxModelLen: 131_072 }));
      for (const isSoftware of [false, true]) {
        const info = { isSoftware, subgroupSizes: null, maxStorageBufferBytes: 2 ** 27 };
        const [engineRouter] = engineRouters(model, info);
        const set = wgslKernelsWith(model, shape, info, engineRouter!);
        for (const { kernel } of [set.attendWrite, set.attend, set.fold, set.sample]) await validate(kernel);
        await validate(set.ballast);
      }
    }
  });

  test.each(ROUTERS)('the router compiles in every variant, %o', async (router) => {
    // What a monolithic router adds knows neither gate nor subgroups.
    const isModular = router.kind === 'modular';
    for (const gateWidth of isModular ? [8, 16] : [8]) {
      const model = modelPreset(name, gateWidth);
      const shape = kernelShape(model, engineConfig());
      for (const sizes of isModular ? SUBGROUP_SIZES : SUBGROUP_SIZES.slice(0, 2)) {
        const info = { isSoftware: sizes === null, subgroupSizes: sizes, maxStorageBufferBytes: 2 ** 27 };
        for (const engineRouter of engineRouters(model, info, router)) {
          const set = wgslKernelsWith(model, shape, info, engineRouter, router);
          if (set.gate) await validate(set.gate.kernel);
          await validate(set.route.kernel);
          await validate(set.pack);
          if (set.expand) await validate(set.expand.kernel);
        }
      }
    }
  });
});

test('wrong WGSL is refused here as well, with its source', async () => {
  const kernel: Kernel = {
    name: 'wrong',
    wgsl: () => 'let x = ;',
    bindings: [],
    requires: [],
    reference: () => undefined,
  };
  await expect(validate(kernel)).rejects.toThrow(/wrong does not compile:[^]*1 \| let x = ;/);
});

test('no error was left over', async () => {
  await new Promise((resolve) => {
    setTimeout(resolve, 10);
  });
  expectNotLost();
});
