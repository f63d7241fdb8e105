/** What a WebGPU device is, as far as a choice of kernels, and a headline, want to know. */

import type { DeviceInfo } from '../../contract/device.ts';

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|warp/i;

export function isSoftwareName(name: string): boolean {
  return SOFTWARE.test(name);
}

/** What a device is called, and whether it is software. */
export type DeviceTitle = Pick<DeviceInfo, 'description' | 'isSoftware'>;

/** `title` absent: as the device calls itself. */
export function webGpuInfo(gpu: GPUDevice, title: DeviceTitle = ownTitle(gpu)): DeviceInfo {
  const { subgroupMinSize = 0, subgroupMaxSize = 0 } = gpu.adapterInfo;
  return {
    kind: 'webgpu',
    description: title.description,
    isSoftware: title.isSoftware,
    subgroupSizes: gpu.features.has('subgroups') ? [subgroupMinSize, subgroupMaxSize] : null,
    hasTimestamps: gpu.features.has('timestamp-query'),
    maxStorageBufferBytes: Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize),
  };
}

function ownTitle({ adapterInfo }: GPUDevice): DeviceTitle {
  const { description, device, architecture, vendor, isFallbackAdapter } = adapterInfo;
  const names = [description, device, architecture, vendor].filter((name) => name !== '');
  return { description: names[0] ?? 'WebGPU', isSoftware: isFallbackAdapter || names.some(isSoftwareName) };
}
