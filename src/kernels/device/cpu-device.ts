/**
 * The `cpu` device: buffers are arrays, kernels are their TypeScript references, and `submit` has run when it returns.
 */

import type {
  BoundKernel,
  BufferUsage,
  CommandRecorder,
  Device,
  DeviceBuffer,
  DeviceInfo,
  Kernel,
} from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';

/** What `lost` says after an orderly `destroy`. */
export const DESTROYED = 'destroyed by its owner';

const MAX_BUFFER_BYTES = 2 ** 32 - 4;

class CpuBuffer implements DeviceBuffer {
  readonly label: string;
  readonly usage: BufferUsage;
  words: Uint32Array<ArrayBuffer>;
  readonly byteLength: number;

  constructor(label: string, byteLength: number, usage: BufferUsage) {
    this.label = label;
    this.byteLength = byteLength;
    this.usage = usage;
    this.words = new Uint32Array(Math.ceil(byteLength / 4));
  }

  destroy(): void {
    this.words = new Uint32Array(0);
  }
}

class CpuBound implements BoundKernel {
  readonly kernel: Kernel;
  readonly buffers: readonly Uint32Array[];

  constructor(kernel: Kernel, buffers: readonly Uint32Array[]) {
    this.kernel = kernel;
    this.buffers = buffers;
  }
}

/** Runs each command when it is recorded. */
class CpuRecorder implements CommandRecorder {
  dispatch(bound: BoundKernel, x: number, y: number = 1, z: number = 1): void {
    bound.kernel.reference((bound as CpuBound).buffers, [x, y, z]);
  }

  copy(
    source: DeviceBuffer,
    sourceOffset: number,
    target: DeviceBuffer,
    targetOffset: number,
    byteLength: number,
  ): void {
    requireRange(source, sourceOffset, byteLength);
    requireRange(target, targetOffset, byteLength);
    const from = sourceOffset / 4;
    (target as CpuBuffer).words.set(
      (source as CpuBuffer).words.subarray(from, from + byteLength / 4),
      targetOffset / 4,
    );
  }
}

export class CpuDevice implements Device {
  readonly info: DeviceInfo = {
    kind: 'cpu',
    description: 'cpu (TypeScript reference kernels)',
    isSoftware: true,
    subgroupSizes: null,
    hasTimestamps: true,
    maxStorageBufferBytes: MAX_BUFFER_BYTES,
  };
  readonly lost: Promise<string>;

  readonly #recorder = new CpuRecorder();
  readonly #buffers = new Set<CpuBuffer>();
  readonly #pending = new Set<Promise<unknown>>();
  #settleLost: (reason: string) => void = () => undefined;
  #lostReason: string | null = null;
  #destroyed: Promise<void> | null = null;

  constructor() {
    this.lost = new Promise((resolve) => {
      this.#settleLost = resolve;
    });
  }

  createBuffer(label: string, byteLength: number, usage: BufferUsage): DeviceBuffer {
    if (!Number.isInteger(byteLength) || byteLength < 4 || byteLength > MAX_BUFFER_BYTES) {
      throw RoutedExpertsError.of(
        'BAD_VALUE',
        `byte length of buffer "${label}"`,
        byteLength,
        `4 to ${MAX_BUFFER_BYTES}`,
      );
    }
    const buffer = new CpuBuffer(label, byteLength, usage);
    this.#buffers.add(buffer);
    return buffer;
  }

  bind(kernel: Kernel, buffers: readonly DeviceBuffer[]): Promise<BoundKernel> {
    if (buffers.length !== kernel.bindings.length) {
      const problem = `kernel ${kernel.name} has ${kernel.bindings.length} bindings, got ${buffers.length} buffers`;
      return Promise.reject(RoutedExpertsError.of('INVARIANT', problem));
    }
    return Promise.resolve(
      new CpuBound(
        kernel,
        buffers.map((buffer) => (buffer as CpuBuffer).words),
      ),
    );
  }

  write(buffer: DeviceBuffer, byteOffset: number, data: Uint32Array): void {
    requireRange(buffer, byteOffset, data.byteLength);
    (buffer as CpuBuffer).words.set(data, byteOffset / 4);
  }

  submit(record: (commands: CommandRecorder) => void): void {
    this.#requireAlive();
    record(this.#recorder);
  }

  async read<T>(buffer: DeviceBuffer, byteLength: number, consume: (bytes: Uint8Array) => T): Promise<T> {
    this.#requireAlive();
    requireRange(buffer, 0, byteLength);
    const { words } = buffer as CpuBuffer;
    const turn = nextTurn();
    this.#pending.add(turn);
    await turn;
    this.#pending.delete(turn);
    return consume(new Uint8Array(words.buffer, 0, byteLength));
  }

  time(record: (commands: CommandRecorder) => void): Promise<number> {
    const start = performance.now();
    try {
      this.submit(record);
    } catch (error) {
      return Promise.reject(error);
    }
    return Promise.resolve((performance.now() - start) * 1e6);
  }

  destroy(): Promise<void> {
    this.#destroyed ??= this.#close();
    return this.#destroyed;
  }

  async #close(): Promise<void> {
    await Promise.all(this.#pending);
    this.#lostReason = DESTROYED;
    for (const buffer of this.#buffers) buffer.destroy();
    this.#buffers.clear();
    this.#settleLost(DESTROYED);
  }

  #requireAlive(): void {
    if (this.#lostReason !== null) throw RoutedExpertsError.of('DEVICE_LOST', this.#lostReason);
  }
}

/** One turn of the event loop; browsers have no `setImmediate`. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === 'function') setImmediate(resolve);
    else setTimeout(resolve, 0);
  });
}

function requireRange(buffer: DeviceBuffer, byteOffset: number, byteLength: number): void {
  if (byteOffset % 4 !== 0 || byteLength % 4 !== 0 || byteOffset < 0 || byteOffset + byteLength > buffer.byteLength) {
    throw RoutedExpertsError.of(
      'INVARIANT',
      `bytes [${byteOffset}, ${byteOffset + byteLength}) of buffer "${buffer.label}", which has ${buffer.byteLength}`,
    );
  }
}
