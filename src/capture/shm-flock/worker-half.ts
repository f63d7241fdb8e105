/**
 * shm-flock, worker half: in every step, for every request, a blocking read of the slot mapping before the forward pass and of the whole
 * device buffer after it, then, under the lock, a write of each row to its slot. The runner keeps one step in flight: that is what
 * blocking means for a device whose reads are asynchronous.
 */

import type { CaptureLiveCounts, CaptureWorkerContext, CaptureWorkerHalf, WorkerStep } from '../../contract/capture.ts';
import type { DeviceBuffer } from '../../contract/device.ts';
import type { RowShape } from '../row-shape.ts';
import { rowShape } from '../row-shape.ts';
import type { SharedRows } from './shared-rows.ts';

export class ShmFlockWorkerHalf implements CaptureWorkerHalf {
  readonly design = 'shm-flock';
  readonly blocking = true;
  readonly #context: CaptureWorkerContext;
  readonly #shape: RowShape;
  readonly #shared: SharedRows;
  readonly #slotStaging: DeviceBuffer;
  readonly #rowStaging: DeviceBuffer;
  readonly #slots: Uint32Array;

  constructor(context: CaptureWorkerContext, shared: SharedRows) {
    this.#context = context;
    this.#shape = rowShape(context.model, 'int32');
    this.#shared = shared;
    const { maxNumBatchedTokens } = context.engine;
    this.#slots = new Uint32Array(maxNumBatchedTokens);
    this.#slotStaging = context.device.createBuffer('shm-flock/slots', maxNumBatchedTokens * 4, 'readback');
    const rowsBytes = maxNumBatchedTokens * this.#shape.bytesPerRow;
    this.#rowStaging = context.device.createBuffer('shm-flock/rows', rowsBytes, 'readback');
  }

  async beforeForward(step: WorkerStep): Promise<void> {
    const byteLength = step.numTokens * 4;
    const { device, slotMapping } = this.#context;
    device.submit((commands) => commands.copy(slotMapping, 0, this.#slotStaging, 0, byteLength));
    await device.read(this.#slotStaging, byteLength, (bytes) => {
      this.#slots.set(new Uint32Array(bytes.buffer, bytes.byteOffset, step.numTokens));
    });
  }

  record(): null {
    return null;
  }

  async afterForward(step: WorkerStep): Promise<void> {
    const byteLength = step.numTokens * this.#shape.bytesPerRow;
    const { device, routedExperts } = this.#context;
    device.submit((commands) => commands.copy(routedExperts, 0, this.#rowStaging, 0, byteLength));
    await device.read(this.#rowStaging, byteLength, (bytes) => this.#store(bytes, step.numTokens));
  }

  collect(): null {
    return null;
  }

  forget(): void {}
  recycle(): void {}

  liveCounts(): CaptureLiveCounts {
    return { requests: 0, bytes: 0 };
  }

  close(): void {
    this.#shared.close();
  }

  #store(bytes: Uint8Array, numTokens: number): void {
    const width = this.#shape.entriesPerRow;
    const rows = new Int32Array(bytes.buffer, bytes.byteOffset, numTokens * width);
    this.#shared.lock();
    try {
      for (let row = 0; row < numTokens; row++) {
        this.#shared.rows.set(rows.subarray(row * width, (row + 1) * width), this.#slots[row]! * width);
      }
    } finally {
      this.#shared.unlock();
    }
  }
}
