/** What a WebGPU device makes, and its commands refer to: buffers and bound kernels. */

import type { BoundKernel, DeviceBuffer, Kernel } from '../../contract/device.ts';

export class WebGpuBuffer implements DeviceBuffer {
  readonly label: string;
  readonly byteLength: number;
  readonly gpu: GPUBuffer;
  readonly #forget: (buffer: WebGpuBuffer) => void;

  constructor(gpu: GPUBuffer, forget: (buffer: WebGpuBuffer) => void) {
    this.label = gpu.label;
    this.byteLength = gpu.size;
    this.gpu = gpu;
    this.#forget = forget;
  }

  destroy(): void {
    this.#forget(this);
    this.gpu.destroy();
  }
}

export class WebGpuBound implements BoundKernel {
  readonly kernel: Kernel;
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;

  constructor(kernel: Kernel, pipeline: GPUComputePipeline, group: GPUBindGroup) {
    this.kernel = kernel;
    this.pipeline = pipeline;
    this.group = group;
  }
}
