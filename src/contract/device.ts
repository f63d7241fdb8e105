/**
 * The device as model runner and capture designs see it: buffers, kernels, one in-order queue. Implementations:
 * `webgpu`, `cpu` (the TypeScript references, run at once), `clock` (the same, at the pace of a modelled GPU), and the
 * simulator's virtual device.
 *
 * All operations of one device execute in the order in which they were called (WebGPU has one queue). A copy reads its
 * source when it executes, not when it is called.
 */

import type { DeviceKind } from './config.ts';

/** Memory of a device. */
export interface DeviceBuffer {
  readonly label: string;
  readonly byteLength: number;
  destroy(): void;
}

/**
 * `storage`: kernels read and write it, and it can be copied from and to. `readback`: the host can read it, copies
 * write it.
 */
export type BufferUsage = 'storage' | 'readback';

export type KernelAccess = 'read' | 'read-write';

/** The text of the shader file of that name: its path below `src/kernels`, without `.wgsl`. */
export type ReadShader = (file: string) => string;

/**
 * A kernel is plain data. Two kernels of one name are the same kernel: the name is the cache key, the label and the
 * bench row.
 */
export type Kernel = Readonly<{
  name: string;
  /**
   * Complete WGSL, shape constants prepended; entry point `main`, bindings 0… in group 0. A device that compiles it
   * says how shader files are read; so a kernel by itself needs no file system.
   */
  wgsl: (read: ReadShader) => string;
  /** Access of each binding. */
  bindings: readonly KernelAccess[];
  /** WebGPU features without which it does not compile. */
  requires: readonly 'subgroups'[];
  /**
   * The same function in TypeScript, over the same bindings, for `workgroups` workgroups in x. Writes what the WGSL
   * writes, bit for bit, and nothing else.
   */
  reference: (buffers: readonly Uint32Array[], workgroups: readonly [x: number, y: number, z: number]) => void;
}>;

/** A kernel compiled and bound to buffers. */
export interface BoundKernel {
  readonly kernel: Kernel;
}

/** Records the commands of one submission, in their order. */
export interface CommandRecorder {
  /** A forward pass over so many tokens begins. Only a device whose time is modelled needs to know. */
  beginPass?(numTokens: number): void;
  dispatch(bound: BoundKernel, x: number, y?: number, z?: number): void;
  /** Offsets and length in bytes, multiples of 4. */
  copy(
    source: DeviceBuffer,
    sourceOffset: number,
    target: DeviceBuffer,
    targetOffset: number,
    byteLength: number,
  ): void;
}

/** `blocksThread`: the caller's thread may stand still for it, where the platform has a way to let it. */
export type ReadOptions = Readonly<{ blocksThread?: boolean }>;

/** Reads of a device that keeps to deadlines; `longestMs`: by how much the one that was missed most was missed. */
export type DeadlineCounts = Readonly<{ count: number; overrun: number; longestMs: number }>;

/** What a device is and can do. */
export type DeviceInfo = Readonly<{
  kind: DeviceKind;
  /** e.g. `NVIDIA H100 80GB HBM3 (Vulkan)` or `SwiftShader (CPU, software)`. */
  description: string;
  /** A software adapter's time says nothing about a GPU's. */
  isSoftware: boolean;
  /** Subgroup sizes `[min, max]`, or `null` where subgroups are not supported. */
  subgroupSizes: readonly [min: number, max: number] | null;
  hasTimestamps: boolean;
  maxStorageBufferBytes: number;
}>;

/** A device with one queue. */
export interface Device {
  readonly info: DeviceInfo;
  /**
   * Settles, with the reason, when the device is lost or an error was not captured; never rejects. After it, `read`
   * rejects.
   */
  readonly lost: Promise<string>;

  /** Zero-filled. Throws if `byteLength` is over the adapter's limit. */
  createBuffer(label: string, byteLength: number, usage: BufferUsage): DeviceBuffer;
  /** Compiles (once per kernel name) and binds. Rejects with the numbered source if the WGSL is wrong. */
  bind(kernel: Kernel, buffers: readonly DeviceBuffer[]): Promise<BoundKernel>;
  /**
   * Host to device, in queue order. The data is taken before it returns. Offset and length in bytes, multiples of 4.
   */
  write(buffer: DeviceBuffer, byteOffset: number, data: Uint32Array): void;
  /** Records and submits one command buffer. Dispatches see all writes of those before them. */
  submit(record: (commands: CommandRecorder) => void): void;
  /**
   * Waits for all that was submitted before, then hands `consume` the first `byteLength` bytes of a `readback` buffer.
   * The view is valid only inside `consume`. A buffer must not be a copy's target between `read` and its end.
   */
  read<T>(
    buffer: DeviceBuffer,
    byteLength: number,
    consume: (bytes: Uint8Array) => T,
    options?: ReadOptions,
  ): Promise<T>;
  /**
   * Runs `record` as one command buffer and returns the device time between its first and last dispatch, in
   * nanoseconds. Only for benches. Rejects where `info.hasTimestamps` is false.
   */
  time(record: (commands: CommandRecorder) => void): Promise<number>;
  /** Since the last call, or the start. Only a device whose time is modelled has it. */
  takeDeadlines?(): DeadlineCounts;
  /**
   * Waits for pending reads, destroys every buffer, and gives the event loop the turn that the platform needs.
   * Idempotent.
   */
  destroy(): Promise<void>;
}
