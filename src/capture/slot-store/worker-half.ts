/**
 * slot-store, worker half: in every step, for every request, all rows are packed on the device and copied within the
 * step's own command buffer; rows and slot mapping leave with the step's output. It keeps nothing.
 */

import type { CaptureWorkerContext, CaptureWorkerHalf, DeviceRange, WorkerStep } from '../../contract/capture.ts';
import type { CommandRecorder } from '../../contract/device.ts';
import type { RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import { BytePool } from '../byte-pool.ts';
import { RowPacker } from '../pack-rows.ts';
import { slottedDeltas } from './slotted-deltas.ts';

export class SlotStoreWorkerHalf implements CaptureWorkerHalf {
  readonly design = 'slot-store';
  readonly #packer: RowPacker;
  readonly #buffers: BytePool = new BytePool();

  constructor(context: CaptureWorkerContext) {
    this.#packer = new RowPacker(context);
  }

  record(step: WorkerStep, commands: CommandRecorder): DeviceRange {
    return this.#packer.packAll(step, commands);
  }

  /** Rows of rejected drafts go along: they are stored in slots that are written again before anybody reads them. */
  collect(step: WorkerStep, bytes: Uint8Array): RoutedExpertDeltas {
    const rows = new Uint8Array(this.#buffers.take(bytes.byteLength));
    rows.set(bytes);
    return slottedDeltas(step, rows);
  }

  recycle(rows: ArrayBuffer): void {
    this.#buffers.give(rows);
  }
}
