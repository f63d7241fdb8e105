/** Device timestamps around the compute passes of one command buffer. */

import { BufferUsage } from './webgpu-flags.ts';

/** Passes of one command buffer that can be timed. */
const MAX_PASSES = 64;
const BYTES_PER_STAMP = 8;

export class TimestampQueries {
  readonly readback: GPUBuffer;
  readonly byteLength: number = 2 * MAX_PASSES * BYTES_PER_STAMP;
  readonly #set: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  #numPasses = 0;

  constructor(device: GPUDevice) {
    this.#set = device.createQuerySet({ label: 'timestamps', type: 'timestamp', count: 2 * MAX_PASSES });
    this.#resolved = device.createBuffer({
      label: 'timestamps',
      size: this.byteLength,
      usage: BufferUsage.QUERY_RESOLVE | BufferUsage.COPY_SRC,
    });
    this.readback = device.createBuffer({
      label: 'timestamps-readback',
      size: this.byteLength,
      usage: BufferUsage.MAP_READ | BufferUsage.COPY_DST,
    });
  }

  /** Where the next pass writes its begin and end; the passes beyond `MAX_PASSES` share the last pair. */
  nextPass(): GPUComputePassTimestampWrites {
    const pass = Math.min(this.#numPasses, MAX_PASSES - 1);
    this.#numPasses = pass + 1;
    return { querySet: this.#set, beginningOfPassWriteIndex: 2 * pass, endOfPassWriteIndex: 2 * pass + 1 };
  }

  resolve(encoder: GPUCommandEncoder): void {
    if (this.#numPasses === 0) return;
    encoder.resolveQuerySet(this.#set, 0, 2 * this.#numPasses, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.readback, 0, this.byteLength);
  }

  /** Nanoseconds from the first pass's begin to the last one's end. */
  elapsed(bytes: Uint8Array): number {
    if (this.#numPasses === 0) return 0;
    const stamps = new BigUint64Array(bytes.buffer, bytes.byteOffset, 2 * this.#numPasses);
    return Number(stamps[2 * this.#numPasses - 1]! - stamps[0]!);
  }

  destroy(): void {
    this.#set.destroy();
    this.#resolved.destroy();
    this.readback.destroy();
  }
}
