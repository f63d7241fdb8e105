/**
 * Every kernel, for every preset, in every router variant, compiled and bound on Dawn's null backend: WGSL and pipelines are checked on any
 * machine. A device whose error scopes do not end empty is lost, which the last test looks at.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Kernel } from '../../src/contract/device.ts';
import { openNullAdapter } from '../../src/kernels/gpu.ts';
import { kernelShape } from '../../src/kernels/kernel-shape.ts';
import { MODEL_NAMES, modelPreset } from '../../src/kernels/model-presets.ts';
import type { RouteVariant } from '../../src/kernels/route-variant.ts';
import { portableVariant, subgroupVariant } from '../../src/kernels/route-variant.ts';
import { WebGpuDevice } from '../../src/kernels/webgpu-device.ts';
import { wgslKernelsWith } from '../../src/kernels/wgsl-kernels.ts';
import { engineConfig } from './harness.ts';

let device: WebGpuDevice;
let lost: string | null = null;

beforeAll(async () => {
  device = await WebGpuDevice.on(await openNullAdapter());
  void device.lost.then((reason) => {
    lost = reason;
  });
});

afterAll(async () => {
  await device.destroy();
});

/** Compiles, binds and dispatches once, so that bindings are checked against the pipeline, too. */
async function validate(kernel: Kernel): Promise<void> {
  const buffers = kernel.bindings.map((_, i) => device.createBuffer(`${kernel.name} ${i}`, 256, 'storage'));
  const bound = await device.bind(kernel, buffers);
  device.submit((commands) => commands.dispatch(bound, 1, 1));
  for (const buffer of buffers) buffer.destroy();
}

describe.each(MODEL_NAMES)('%s', (name) => {
  test.each([0, 3])('every kernel compiles with %i speculative tokens', async (numSpeculativeTokens) => {
    for (const gateWidth of [8, 16]) {
      const model = modelPreset(name, gateWidth);
      const shape = kernelShape(model, engineConfig({ numSpeculativeTokens, maxNumSeqs: 256, maxModelLen: 131_072 }));
      const portable = portableVariant(shape, true);
      const variants: RouteVariant[] = [portable, { ...portable, algorithm: 'wide' }];
      for (const subgroup of [4, 8, 32, 64, 128]) variants.push(subgroupVariant(shape, subgroup));
      for (const isSoftware of [false, true]) {
        for (const variant of variants) {
          const set = wgslKernelsWith(model, shape, { isSoftware }, variant);
          for (const { kernel } of [set.attendWrite, set.attend, set.route, set.sample]) await validate(kernel);
          await validate(set.pack);
          await validate(set.ballast);
        }
      }
    }
  });
});

test('wrong WGSL is refused here as well, with its source', async () => {
  const kernel: Kernel = { name: 'wrong', wgsl: 'let x = ;', bindings: [], requires: [], reference: () => undefined };
  await expect(device.bind(kernel, [])).rejects.toThrow(/wrong does not compile:[^]*1 \| let x = ;/);
});

test('no error was left over', async () => {
  await new Promise((resolve) => {
    setTimeout(resolve, 10);
  });
  expect(lost).toBe(null);
});
