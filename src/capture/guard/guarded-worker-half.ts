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
import { callHook, closeQuietly, countsOf, designFailed } from './hook-call.ts';
import { wrapDeltas, wrapFailure } from './payload.ts';
import { checkDeltas, checkRange, type KnownBuffers } from './worker-half-checks.ts';

export class GuardedWorkerHalf implements CaptureWorkerHalf {
  readonly design: string;
  readonly blockingReads?: BlockingReads;
  readonly #context: CaptureWorkerContext;
  readonly #buffers: KnownBuffers;
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
      return range === null ? null : this.#checked(range, this.#context.pack.packed.byteLength);
    });
  }

  collect(step: WorkerStep, bytes: Uint8Array | null, numSampledTokens: Uint32Array): RoutedExpertDeltas | null {
    const deltas = this.#attempt('collect', null, (half) => {
      const collected = half.collect(step, bytes, numSampledTokens);
      if (collected === null || collected instanceof Promise) return collected;
      checkDeltas(collected, { lent: bytes, bytesPerRow: this.#bytesPerRow });
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
      readBefore: (step) => this.#attempt('readBefore', nothing, () => this.#checked(reads.readBefore(step), most)),
      takeBefore: (step, bytes) => this.#attempt('takeBefore', undefined, () => reads.takeBefore(step, bytes)),
      readAfter: (step) =>
        this.#attempt('readAfter', null, () => {
          const range = reads.readAfter(step);
          return range === null ? null : this.#checked(range, most);
        }),
      takeAfter: (step, bytes) => this.#attempt('takeAfter', undefined, () => reads.takeAfter(step, bytes)),
    };
  }

  /** A promise is left to `callHook`. */
  #checked(range: DeviceRange, mostBytes: number): DeviceRange {
    if (!(range instanceof Promise)) checkRange(range, { buffers: this.#buffers, mostBytes });
    return range;
  }
}

/** What a guarded worker half is built on, and the buffers that it can know. */
export type WatchedContext = Readonly<{ context: CaptureWorkerContext; buffers: KnownBuffers }>;

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
