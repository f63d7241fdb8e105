/** Opening a device by kind and name, and listing what there is. */

import type { ClockTimes, DeviceKind } from '../../contract/config.ts';
import type { Device, DeviceInfo } from '../../contract/device.ts';
import { ClockDevice } from './clock-device.ts';
import { DEFAULT_CLOCK_TIMES } from './clock-times.ts';
import { CpuDevice } from './cpu-device.ts';
import { listAdapters, openAdapter } from './gpu.ts';

/**
 * Call it in the main thread before a worker opens a device. Looking for adapters once there settles, for every thread,
 * which drivers the Vulkan loader finds: see vulkan-environment.ts. Never rejects for a machine that has none.
 */
export async function prepareAdapters(): Promise<void> {
  await listAdapters();
}

/**
 * `adapter`: of `webgpu`, part of its name, `null` for the best. `times`: of `clock`. Errors: see `openAdapter`.
 */
export async function openDevice(
  kind: DeviceKind,
  adapter: string | null,
  times: ClockTimes = DEFAULT_CLOCK_TIMES,
): Promise<Device> {
  if (kind === 'clock') return new ClockDevice(times);
  return kind === 'cpu' ? new CpuDevice() : (await openAdapter(adapter)).openDevice();
}

/**
 * What `routed-experts devices` lists: every device that opens, best first, each tried; `cpu` and `clock` close the
 * list. An adapter that does not open (a driver too old for Dawn) is left out.
 */
export async function listDevices(): Promise<readonly DeviceInfo[]> {
  const devices: DeviceInfo[] = [];
  for (const { name } of await listAdapters()) {
    const device = await openDevice('webgpu', name).catch(() => null);
    if (device === null) continue;
    devices.push(device.info);
    await device.destroy();
  }
  return [...devices, new CpuDevice().info, new ClockDevice(DEFAULT_CLOCK_TIMES).info];
}
