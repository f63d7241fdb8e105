/**
 * A WebGPU device. Keeps alive all that must outlive its maps: adapter and instance, buffers, pipelines. Errors that
 * no call asks about (WebGPU does not throw them) end a device of its own, with the reason in `lost`; on a device that
 * is the caller's, they are the caller's to hear.
 */

import type {
  BoundKernel,
  BufferUsage as Usage,
  CommandRecorder,
  Device,
  DeviceBuffer,
  DeviceInfo,
  Kernel,
} from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { DESTROYED } from './cpu-device.ts';
import { readShader } from './shader-files.ts';
import { TimestampQueries } from './timestamp-queries.ts';
import { lookTimes } from './polling.ts';
import { BufferUsage, MapMode, ShaderStage } from './webgpu-flags.ts';
import { WebGpuRecorder } from './webgpu-recorder.ts';
import { WebGpuBound, WebGpuBuffer } from './webgpu-resources.ts';

const STORAGE = BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST;
const READBACK = BufferUsage.MAP_READ | BufferUsage.COPY_DST;

/** Holds what must outlive a device. */
export type AdapterHold = Readonly<{ release: () => void }>;

export class WebGpuDevice implements Device {
  readonly info: DeviceInfo;
  readonly lost: Promise<string>;

  readonly #adapter: AdapterHold | null;
  readonly #gpu: GPUDevice;
  readonly #buffers = new Set<WebGpuBuffer>();
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>();
  readonly #pending = new Set<Promise<unknown>>();
  #settleLost: (reason: string) => void = () => undefined;
  #lostReason: string | null = null;
  #destroyed: Promise<void> | null = null;

  /**
   * `adapter` is released by `destroy`, after `gpu` was destroyed. `null`: `gpu` is the caller's, and `destroy` leaves
   * it alone.
   */
  constructor(gpu: GPUDevice, info: DeviceInfo, adapter: AdapterHold | null) {
    this.#adapter = adapter;
    this.#gpu = gpu;
    this.info = info;
    this.lost = new Promise((resolve) => {
      this.#settleLost = resolve;
    });
    if (adapter !== null) gpu.addEventListener('uncapturederror', (event) => this.#lose(event.error.message));
    void gpu.lost.then((loss) => this.#lose(loss.message === '' ? loss.reason : loss.message));
  }

  createBuffer(label: string, byteLength: number, usage: Usage): DeviceBuffer {
    this.#requireAlive();
    const { maxBufferSize, maxStorageBufferBindingSize } = this.#gpu.limits;
    const max = usage === 'storage' ? Math.min(maxBufferSize, maxStorageBufferBindingSize) : maxBufferSize;
    if (!Number.isInteger(byteLength) || byteLength < 4 || byteLength > max) {
      throw RoutedExpertsError.of('BAD_VALUE', `byte length of buffer "${label}"`, byteLength, `4 to ${max}`);
    }
    const size = Math.ceil(byteLength / 16) * 16;
    const gpu = this.#gpu.createBuffer({ label, size, usage: usage === 'storage' ? STORAGE : READBACK });
    const buffer = new WebGpuBuffer(gpu, (gone) => this.#buffers.delete(gone));
    this.#buffers.add(buffer);
    return buffer;
  }

  async bind(kernel: Kernel, buffers: readonly DeviceBuffer[]): Promise<BoundKernel> {
    this.#requireAlive();
    if (buffers.length !== kernel.bindings.length) {
      const problem = `kernel ${kernel.name} has ${kernel.bindings.length} bindings, got ${buffers.length} buffers`;
      throw RoutedExpertsError.of('INVARIANT', problem);
    }
    let pipeline = this.#pipelines.get(kernel.name);
    if (pipeline === undefined) {
      pipeline = this.#compile(kernel);
      this.#pipelines.set(kernel.name, pipeline);
    }
    const compiled = await pipeline;
    const group = this.#gpu.createBindGroup({
      label: kernel.name,
      layout: compiled.getBindGroupLayout(0),
      entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer: (buffer as WebGpuBuffer).gpu } })),
    });
    return new WebGpuBound(kernel, compiled, group);
  }

  write(buffer: DeviceBuffer, byteOffset: number, data: Uint32Array): void {
    this.#requireAlive();
    const bytes = data as Uint32Array<ArrayBuffer>;
    this.#gpu.queue.writeBuffer(
      (buffer as WebGpuBuffer).gpu,
      byteOffset,
      bytes.buffer,
      bytes.byteOffset,
      bytes.byteLength,
    );
  }

  submit(record: (commands: CommandRecorder) => void): void {
    this.#requireAlive();
    const recorder = new WebGpuRecorder(this.#gpu, null);
    record(recorder);
    this.#gpu.queue.submit([recorder.finish()]);
  }

  read<T>(buffer: DeviceBuffer, byteLength: number, consume: (bytes: Uint8Array) => T): Promise<T> {
    return this.#track(this.#read((buffer as WebGpuBuffer).gpu, byteLength, consume));
  }

  async #read<T>(buffer: GPUBuffer, byteLength: number, consume: (bytes: Uint8Array) => T): Promise<T> {
    this.#requireAlive();
    lookTimes.began(performance.now());
    try {
      await buffer.mapAsync(MapMode.READ, 0, byteLength);
    } catch (error) {
      throw this.#lostReason === null ? error : RoutedExpertsError.of('DEVICE_LOST', this.#lostReason);
    } finally {
      lookTimes.ended(performance.now());
    }
    try {
      return consume(new Uint8Array(buffer.getMappedRange(0, byteLength)));
    } finally {
      buffer.unmap();
    }
  }

  time(record: (commands: CommandRecorder) => void): Promise<number> {
    return this.#track(this.#time(record));
  }

  async #time(record: (commands: CommandRecorder) => void): Promise<number> {
    this.#requireAlive();
    if (!this.info.hasTimestamps)
      throw RoutedExpertsError.of('INVARIANT', `${this.info.description} has no timestamps`);
    const queries = new TimestampQueries(this.#gpu);
    try {
      const recorder = new WebGpuRecorder(this.#gpu, queries);
      record(recorder);
      this.#gpu.queue.submit([recorder.finish()]);
      return await this.#read(queries.readback, queries.byteLength, (bytes) => queries.elapsed(bytes));
    } finally {
      queries.destroy();
    }
  }

  destroy(): Promise<void> {
    this.#destroyed ??= this.#close();
    return this.#destroyed;
  }

  /** Waits until no map is pending: one that is when its thread ends takes the process down. */
  async #close(): Promise<void> {
    while (this.#pending.size > 0) await Promise.allSettled(this.#pending);
    this.#lose(DESTROYED);
    for (const buffer of this.#buffers) buffer.destroy();
    if (this.#adapter === null) return;
    this.#gpu.destroy();
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    this.#pipelines.clear();
    this.#adapter.release();
  }

  async #compile(kernel: Kernel): Promise<GPUComputePipeline> {
    const gpu = this.#gpu;
    const code = kernel.wgsl(readShader);
    gpu.pushErrorScope('validation');
    const module = gpu.createShaderModule({ label: kernel.name, code });
    const layout = gpu.createBindGroupLayout({
      label: kernel.name,
      entries: kernel.bindings.map((access, binding) => ({
        binding,
        visibility: ShaderStage.COMPUTE,
        buffer: { type: access === 'read' ? 'read-only-storage' : 'storage' },
      })),
    });
    const descriptor = {
      label: kernel.name,
      layout: gpu.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: 'main' },
    };
    const pipeline = gpu.createComputePipelineAsync(descriptor).catch((error: unknown) => error);
    const scope = await gpu.popErrorScope();
    const result = await pipeline;
    if (scope === null && !(result instanceof Error)) return result as GPUComputePipeline;
    const { messages } = await module.getCompilationInfo();
    const problems = messages.map(({ lineNum, linePos, message }) => `${lineNum}:${linePos} ${message}`);
    if (problems.length === 0) problems.push(scope?.message ?? String(result));
    throw new Error(`kernel ${kernel.name} does not compile:\n${problems.join('\n')}\n\n${numbered(code)}`);
  }

  #track<T>(work: Promise<T>): Promise<T> {
    this.#pending.add(work);
    const done = (): void => void this.#pending.delete(work);
    work.then(done, done);
    return work;
  }

  #lose(reason: string): void {
    this.#lostReason ??= reason;
    this.#settleLost(this.#lostReason);
  }

  #requireAlive(): void {
    if (this.#lostReason !== null) throw RoutedExpertsError.of('DEVICE_LOST', this.#lostReason);
  }
}

/** The source as a compile error quotes it. */
function numbered(source: string): string {
  const lines = source.split('\n');
  const width = String(lines.length).length;
  return lines.map((line, i) => `${String(i + 1).padStart(width)} | ${line}`).join('\n');
}
