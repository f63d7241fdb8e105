/** Opening a device by kind and name, and listing what there is. */

import type { DeviceKind } from '../../contract/config.ts';
import type { Device, DeviceInfo } from '../../contract/device.ts';
import { CpuDevice } from './cpu-device.ts';
import type { OpenAdapter } from './gpu.ts';
import { listAdapters, openAdapter } from './gpu.ts';
import { WebGpuDevice } from './webgpu-device.ts';
import { webGpuInfo } from './webgpu-info.ts';

/**
 * Call it in the main thread before a worker opens a device. Looking for adapters once there settles, for every thread,
 * which drivers the Vulkan loader finds: see vulkan-environment.ts. Never rejects for a machine that has none.
 */
export async function prepareAdapters(): Promise<void> {
  await listAdapters();
}

/** `adapter`: part of an adapter's name, `null` for the best; without meaning for `cpu`. Errors: see `openAdapter`. */
export async function openDevice(kind: DeviceKind, adapter: string | null): Promise<Device> {
  return kind === 'cpu' ? new CpuDevice() : deviceOn(await openAdapter(adapter));
}

/** The device of an adapter, which it takes over: it is released by `destroy`. */
export async function deviceOn(open: OpenAdapter): Promise<Device> {
  const { name, backend, isSoftware } = open;
  const { features, limits } = open.adapter;
  const wanted: readonly GPUFeatureName[] = ['subgroups', 'timestamp-query'];
  try {
    const gpu = await open.adapter.requestDevice({
      requiredFeatures: wanted.filter((feature) => features.has(feature)),
      requiredLimits: {
        maxBufferSize: limits.maxBufferSize,
        maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
      },
    });
    const description = `${name} (${isSoftware ? 'CPU, software' : backend})`;
    return new WebGpuDevice(gpu, webGpuInfo(gpu, { description, isSoftware }), open);
  } catch (error) {
    open.release();
    throw error;
  }
}

/**
 * What `routed-experts devices` lists: every device that opens, best first, each tried; `cpu` closes the list. An
 * adapter that does not open (a driver too old for Dawn) is left out.
 */
export async function listDevices(): Promise<readonly DeviceInfo[]> {
  const devices: DeviceInfo[] = [];
  for (const { name } of await listAdapters()) {
    const device = await openDevice('webgpu', name).catch(() => null);
    if (device === null) continue;
    devices.push(device.info);
    await device.destroy();
  }
  return [...devices, new CpuDevice().info];
}
