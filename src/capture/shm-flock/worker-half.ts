/**
 * shm-flock, worker half: in every step, for every request, a blocking read of the slot mapping before the forward
 * pass and of the whole device buffer after it, then, under the lock, a write of each row to its slot. The runner keeps
 * one step in flight: that is what blocking means for a device whose reads are asynchronous.
 *
 * As in the source, every rank reads the slot mapping, and rank 0 alone does the rest: the other ranks map no shared
 * memory and take no lock.
 */

import type {
  BlockingReads,
  CaptureWorkerContext,
  CaptureWorkerHalf,
  DeviceRange,
  WorkerStep,
} from '../../contract/capture.ts';
import type { CommandRecorder } from '../../contract/device.ts';
import type { RowShape } from '../row-shape.ts';
import { rowShape } from '../row-shape.ts';
import type { SharedRows } from './shared-rows.ts';

/** With the save switched off: the hook writes its buffer in every step, and nobody reads it. */
export class UnsavedWorkerHalf implements CaptureWorkerHalf {
  readonly design = 'shm-flock';
  readonly #context: CaptureWorkerContext;

  constructor(context: CaptureWorkerContext) {
    this.#context = context;
  }

  record({ numTokens }: WorkerStep, commands: CommandRecorder): null {
    this.#context.recordRows?.(commands, numTokens);
    return null;
  }

  collect(): null {
    return null;
  }
}

export class ShmFlockWorkerHalf implements CaptureWorkerHalf, BlockingReads {
  readonly design = 'shm-flock';
  readonly blockingReads: BlockingReads = this;
  readonly #context: CaptureWorkerContext;
  readonly #shape: RowShape;
  /** `null` on ranks that do not save. */
  readonly #shared: SharedRows | null;
  readonly #slots: Uint32Array;

  constructor(context: CaptureWorkerContext, shared: SharedRows | null) {
    this.#context = context;
    this.#shape = rowShape(context.model, 'int32');
    this.#shared = shared;
    this.#slots = new Uint32Array(context.engine.maxNumBatchedTokens);
  }

  readBefore(step: WorkerStep): DeviceRange {
    return { buffer: this.#context.slotMapping, byteOffset: step.firstRow * 4, byteLength: step.numTokens * 4 };
  }

  takeBefore(step: WorkerStep, bytes: Uint8Array): void {
    this.#slots.set(new Uint32Array(bytes.buffer, bytes.byteOffset, step.numTokens));
  }

  record({ numTokens }: WorkerStep, commands: CommandRecorder): null {
    this.#context.recordRows?.(commands, numTokens);
    return null;
  }

  readAfter(step: WorkerStep): DeviceRange | null {
    if (this.#shared === null) return null;
    const { bytesPerRow } = this.#shape;
    return {
      buffer: this.#context.routedExperts,
      byteOffset: step.firstRow * bytesPerRow,
      byteLength: step.numTokens * bytesPerRow,
    };
  }

  /** Writes each row to its slot, under the lock. */
  takeAfter(step: WorkerStep, bytes: Uint8Array): void {
    const width = this.#shape.entriesPerRow;
    const rows = new Int32Array(bytes.buffer, bytes.byteOffset, step.numTokens * width);
    const shared = this.#shared!;
    shared.lock();
    try {
      for (let row = 0; row < step.numTokens; row++) {
        shared.rows.set(rows.subarray(row * width, (row + 1) * width), this.#slots[row]! * width);
      }
    } finally {
      shared.unlock();
    }
  }

  collect(): null {
    return null;
  }

  close(): void {
    this.#shared?.close();
  }
}
