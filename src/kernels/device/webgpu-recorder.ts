/**
 * Turns dispatches and copies into one command buffer. Neighbouring dispatches share a compute pass; WebGPU orders
 * them.
 */

import type { BoundKernel, CommandRecorder, DeviceBuffer } from '../../contract/device.ts';
import type { TimestampQueries } from './timestamp-queries.ts';
import type { WebGpuBound, WebGpuBuffer } from './webgpu-resources.ts';

export class WebGpuRecorder implements CommandRecorder {
  readonly #encoder: GPUCommandEncoder;
  readonly #queries: TimestampQueries | null;
  #pass: GPUComputePassEncoder | null = null;

  /** With `queries`, each pass is timed. */
  constructor(device: GPUDevice, queries: TimestampQueries | null) {
    this.#encoder = device.createCommandEncoder();
    this.#queries = queries;
  }

  dispatch(bound: BoundKernel, x: number, y: number = 1, z: number = 1): void {
    const { pipeline, group } = bound as WebGpuBound;
    const pass = (this.#pass ??= this.#beginPass());
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y, z);
  }

  copy(
    source: DeviceBuffer,
    sourceOffset: number,
    target: DeviceBuffer,
    targetOffset: number,
    byteLength: number,
  ): void {
    this.#endPass();
    const from = (source as WebGpuBuffer).gpu;
    this.#encoder.copyBufferToBuffer(from, sourceOffset, (target as WebGpuBuffer).gpu, targetOffset, byteLength);
  }

  finish(): GPUCommandBuffer {
    this.#endPass();
    this.#queries?.resolve(this.#encoder);
    return this.#encoder.finish();
  }

  #beginPass(): GPUComputePassEncoder {
    const timestampWrites = this.#queries?.nextPass();
    return this.#encoder.beginComputePass(timestampWrites === undefined ? {} : { timestampWrites });
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = null;
  }
}
