/** Opening a device by kind and name, and listing what there is. */

import type { ClockTimes, DeviceKind } from '../../contract/config.ts';
import type { Device, DeviceInfo } from '../../contract/device.ts';
import { ClockDevice } from './clock/clock-device.ts';
import { DEFAULT_CLOCK_TIMES } from './clock/clock-times.ts';
import { CpuDevice } from './cpu-device.ts';
import { listAdapters, openAdapter } from './gpu.ts';
import { hasSelectLayer, hostGpus, selectGpu, type HostGpu } from './host-gpus.ts';

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
 * list. An adapter that does not open (a driver too old for Dawn) is left out. Of several GPUs each is listed, if they
 * can be told apart.
 */
export async function listDevices(): Promise<readonly DeviceInfo[]> {
  const adapters = await listAdapters();
  const gpus = hostGpus();
  const tellsApart = gpus.length > 1 && hasSelectLayer();
  const devices = tellsApart ? await listEach(gpus) : [];
  for (const { name, isSoftware } of adapters) {
    const info = tellsApart && !isSoftware ? null : await infoOf(name);
    if (info !== null) devices.push(info);
  }
  return [...devices, new CpuDevice().info, new ClockDevice(DEFAULT_CLOCK_TIMES).info];
}

async function listEach(gpus: readonly HostGpu[]): Promise<DeviceInfo[]> {
  const devices: DeviceInfo[] = [];
  for (const [place, { address }] of gpus.entries()) {
    selectGpu(address);
    // What is selected stands first.
    const [first] = await listAdapters();
    const info = first === undefined || first.isSoftware ? null : await infoOf(first.name);
    if (info !== null) devices.push({ ...info, gpu: { place, address } });
  }
  selectGpu(null);
  return devices;
}

async function infoOf(name: string): Promise<DeviceInfo | null> {
  const device = await openDevice('webgpu', name).catch(() => null);
  await device?.destroy();
  return device?.info ?? null;
}
