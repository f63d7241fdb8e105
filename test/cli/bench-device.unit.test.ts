// Which device a bench runs on, for every kind of machine: a software adapter or a modelled time is never given as a
// GPU's.

import { describe, expect, test } from 'vitest';
import type { DeviceInfo } from '../../src/contract/device.ts';
import { benchDevice, type DeviceFlags } from '../../src/cli/bench/bench-device.ts';
import { DEFAULT_CLOCK_TIMES } from '../../src/kernels/device/clock/clock-times.ts';

const adapter = (description: string, isSoftware: boolean): DeviceInfo => ({
  kind: 'webgpu',
  description,
  isSoftware,
  subgroupSizes: null,
  hasTimestamps: false,
  maxStorageBufferBytes: 2 ** 27,
});
const GPU = adapter('NVIDIA H200 (Vulkan)', false);
const SOFTWARE = adapter('SwiftShader (CPU, software)', true);

const chosen = (flags: DeviceFlags, ...devices: DeviceInfo[]): ReturnType<typeof benchDevice> =>
  benchDevice(flags, () => Promise.resolve(devices));

describe('auto', () => {
  test('is the GPU where there is one', async () => {
    const device = await chosen({ device: 'auto' }, GPU, SOFTWARE);
    expect(device).toMatchObject({ kind: 'webgpu', pace: 'gpu', clockTimes: null, checksShaders: false });
  });

  test('is the clock where there is none, and the shaders are checked on the software adapter', async () => {
    const device = await chosen({ device: 'auto' }, SOFTWARE);
    expect(device).toMatchObject({
      kind: 'clock',
      pace: 'clock',
      clockTimes: DEFAULT_CLOCK_TIMES,
      checksShaders: true,
    });
  });

  test('is the clock without any adapter; no shaders can be checked', async () => {
    expect(await chosen({ device: 'auto' })).toMatchObject({ kind: 'clock', checksShaders: false });
  });

  test('is the adapter that was asked for by name, at its own pace', async () => {
    const flags = { device: 'auto', adapter: 'swift' } as const;
    expect(await chosen(flags, GPU, SOFTWARE)).toMatchObject({ kind: 'webgpu', adapter: 'swift', pace: 'software' });
  });

  test('takes the step time that was asked for', async () => {
    const flags = { device: 'auto', stepTime: { stepMs: 5, perTokenUs: 0 } } as const;
    expect(await chosen(flags, SOFTWARE)).toMatchObject({ clockTimes: { stepMs: 5, perTokenUs: 0, copyGBPerS: 40 } });
  });
});

test('webgpu on a machine without a GPU has the pace of software, and cpu too', async () => {
  expect(await chosen({ device: 'webgpu' }, SOFTWARE)).toMatchObject({ kind: 'webgpu', pace: 'software' });
  expect(await chosen({ device: 'cpu' }, GPU)).toMatchObject({ kind: 'cpu', pace: 'software', checksShaders: false });
});

test('clock is the clock beside a GPU too, and runs no shader', async () => {
  expect(await chosen({ device: 'clock' }, GPU)).toMatchObject({ kind: 'clock', pace: 'clock', checksShaders: false });
});

test.each<[DeviceFlags, RegExp]>([
  [{ device: 'clock', ballastMs: 5 }, /--ballast-ms is 5; give --step-time instead/],
  [{ device: 'cpu', stepTime: { stepMs: 5, perTokenUs: 0 } }, /--step-time is 5 ms; give none with --device cpu/],
  [{ device: 'auto', stepTime: { stepMs: 5, perTokenUs: 1 } }, /--step-time is .* give none .*or give --device clock/],
  [{ device: 'clock', adapter: 'x' }, /--adapter is x; give none with --device clock/],
  [{ device: 'cpu', adapter: 'x' }, /--adapter is x; give none with --device cpu/],
])('%o is refused beside a GPU', async (flags, message) => {
  await expect(chosen(flags, GPU)).rejects.toThrow(message);
});
