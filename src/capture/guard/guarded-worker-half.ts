/**
 * Stands between the model runner and a worker half of the caller's own. The first hook that fails switches the half
 * off: from then on it records and reads nothing, and with every step the engine half's guard is told why.
 */

import type {
  BlockingReads,
  CaptureLiveCounts,
  CaptureWorkerContext,
  CaptureWorkerHalf,
  DeviceRange,
  WorkerStep,
} from '../../contract/capture.ts';
import type { CommandRecorder, Device, DeviceBuffer } from '../../contract/device.ts';
import type { RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import { rowShape } from '../row-shape.ts';
import { BrokenContract, callHook, closeQuietly, countsOf, designFailed, shown } from './hook-call.ts';
import { wrapDeltas, wrapFailure } from './payload.ts';

export class GuardedWorkerHalf implements CaptureWorkerHalf {
  readonly design: string;
  readonly blockingReads?: BlockingReads;
  readonly #context: CaptureWorkerContext;
  readonly #buffers: ReadonlySetLike;
  readonly #bytesPerRow: number;
  /** `null`: switched off, because of `#failure`. */
  #half: CaptureWorkerHalf | null;
  #failure = '';

  constructor(design: string, half: CaptureWorkerHalf, { context, buffers }: WatchedContext) {
    this.design = design;
    this.#context = context;
    this.#buffers = buffers;
    this.#half = half;
    this.#bytesPerRow = rowShape(context.model).bytesPerRow;
    if (half.blockingReads !== undefined) this.blockingReads = this.#guardReads(half.blockingReads);
  }

  record(step: WorkerStep, commands: CommandRecorder): DeviceRange | null {
    return this.#attempt('record', null, (half) => {
      const range = half.record(step, commands);
      if (range !== null) this.#checkRange(range, this.#context.pack.packed.byteLength);
      return range;
    });
  }

  collect(step: WorkerStep, bytes: Uint8Array | null, numSampledTokens: Uint32Array): RoutedExpertDeltas | null {
    const deltas = this.#attempt('collect', null, (half) => {
      const collected = half.collect(step, bytes, numSampledTokens);
      if (collected === null || collected instanceof Promise) return collected;
      this.#checkDeltas(collected, bytes);
      return wrapDeltas(collected);
    });
    return this.#half === null ? wrapFailure(this.#failure) : deltas;
  }

  forget(endedIndices: readonly number[], preemptedIndices: readonly number[]): void {
    this.#attempt('forget', undefined, (half) => half.forget?.(endedIndices, preemptedIndices));
  }

  recycle(rows: ArrayBuffer): void {
    this.#attempt('recycle', undefined, (half) => half.recycle?.(rows));
  }

  liveCounts(): CaptureLiveCounts {
    return this.#attempt('liveCounts', { requests: 0, bytes: 0 }, (half) => countsOf(half));
  }

  close(): void {
    closeQuietly(this.#half);
    this.#half = null;
  }

  #attempt<T>(hook: string, otherwise: T, call: (half: CaptureWorkerHalf) => T): T {
    const half = this.#half;
    if (half === null) return otherwise;
    try {
      return callHook(() => call(half));
    } catch (error) {
      this.#failure = designFailed(this.design, `workerHalf.${hook}`, error).message;
      this.close();
      return otherwise;
    }
  }

  /** The runner asks once for the reads. Of a half that is switched off they read one word before the pass. */
  #guardReads(reads: BlockingReads): BlockingReads {
    const { slotMapping, routedExperts } = this.#context;
    const nothing: DeviceRange = { buffer: slotMapping, byteLength: 4 };
    const most = routedExperts.byteLength;
    return {
      readBefore: (step) => this.#attempt('readBefore', nothing, () => this.#checkRange(reads.readBefore(step), most)),
      takeBefore: (step, bytes) => this.#attempt('takeBefore', undefined, () => reads.takeBefore(step, bytes)),
      readAfter: (step) =>
        this.#attempt('readAfter', null, () => {
          const range = reads.readAfter(step);
          return range === null ? null : this.#checkRange(range, most);
        }),
      takeAfter: (step, bytes) => this.#attempt('takeAfter', undefined, () => reads.takeAfter(step, bytes)),
    };
  }

  /** Throws for a range that the device would refuse, or that what it is copied into has no room for. */
  #checkRange(range: DeviceRange, mostBytes: number): DeviceRange {
    if (range instanceof Promise) return range;
    const { buffer, byteOffset = 0, byteLength } = range ?? {};
    if (!this.#buffers.has(buffer)) throw new BrokenContract('it returned no buffer of this device to read from');
    if (!isWord(byteOffset) || !isWord(byteLength)) {
      const asked = `${shown(byteLength)} bytes from byte ${shown(byteOffset)} on`;
      throw new BrokenContract(`it asked for ${asked}; give multiples of 4`);
    }
    const most = Math.min(mostBytes, buffer.byteLength - byteOffset);
    if (byteLength <= most) return range;
    throw new BrokenContract(
      `it asked for ${byteLength} bytes of "${buffer.label}"; there may be ${Math.max(0, most)}`,
    );
  }

  /** The buffer of the rows is given away: it must be theirs alone, and hold them. */
  #checkDeltas({ rows, numRows, index, indexLength }: RoutedExpertDeltas, bytes: Uint8Array | null): void {
    if (!(rows instanceof Uint8Array) || !(index instanceof Uint32Array)) {
      throw new BrokenContract('it returned no rows (Uint8Array) or no index (Uint32Array)');
    }
    if (rows.buffer === bytes?.buffer) throw new BrokenContract('it returned the bytes that it was lent; copy them');
    const { buffer } = rows;
    if (!(buffer instanceof ArrayBuffer) || rows.byteOffset !== 0 || rows.byteLength !== buffer.byteLength) {
      throw new BrokenContract('its rows do not fill an ArrayBuffer of their own, from its first byte on');
    }
    if (buffer.detached) throw new BrokenContract('its rows lie in a buffer that it has given away before');
    const most = Math.floor(rows.byteLength / this.#bytesPerRow);
    if (!Number.isSafeInteger(numRows) || numRows < 0 || numRows > most) {
      throw new BrokenContract(`numRows is ${shown(numRows)}; its rows have room for ${most}`);
    }
    if (!Number.isSafeInteger(indexLength) || indexLength < 0 || indexLength > index.length) {
      throw new BrokenContract(`indexLength is ${shown(indexLength)}; its index has ${index.length} entries`);
    }
  }
}

/** A number of bytes that a copy on the device can have. */
function isWord(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value % 4 === 0;
}

type ReadonlySetLike = Readonly<{ has: (buffer: DeviceBuffer) => boolean }>;

/** What a guarded worker half is built on, and the buffers that it can know. */
export type WatchedContext = Readonly<{ context: CaptureWorkerContext; buffers: ReadonlySetLike }>;

export function watchedContext(context: CaptureWorkerContext): WatchedContext {
  const { device, routedExperts, slotMapping, pack } = context;
  const buffers = new WeakSet<DeviceBuffer>([routedExperts, slotMapping, pack.rows, pack.packed]);
  const watched: Device = {
    get info() {
      return device.info;
    },
    get lost() {
      return device.lost;
    },
    createBuffer: (label, byteLength, usage) => {
      const buffer = device.createBuffer(label, byteLength, usage);
      buffers.add(buffer);
      return buffer;
    },
    bind: (kernel, bound) => device.bind(kernel, bound),
    write: (buffer, byteOffset, data) => device.write(buffer, byteOffset, data),
    submit: (record) => device.submit(record),
    read: (buffer, byteLength, consume) => device.read(buffer, byteLength, consume),
    time: (record) => device.time(record),
    destroy: () => device.destroy(),
  };
  return { context: { ...context, device: watched }, buffers };
}
