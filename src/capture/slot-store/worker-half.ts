/**
 * slot-store, worker half: in every step, for every request, all rows are packed on the device and copied within the
 * step's own command buffer; rows and slot mapping leave with the step's output. It keeps nothing.
 */

import type {
  CaptureLiveCounts,
  CaptureWorkerContext,
  CaptureWorkerHalf,
  DeviceRange,
  WorkerStep,
} from '../../contract/capture.ts';
import type { CommandRecorder } from '../../contract/device.ts';
import type { RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import { BytePool } from '../byte-pool.ts';
import { recordPack } from '../pack-rows.ts';
import { writeStepIndex } from './step-index.ts';

/** Row buffers that may be under way at once: one per step in flight, and as many on the way back. */
const IDLE_BUFFERS = 8;

export class SlotStoreWorkerHalf implements CaptureWorkerHalf {
  readonly design = 'slot-store';
  readonly #context: CaptureWorkerContext;
  readonly #rowList: Uint32Array;
  readonly #buffers: BytePool = new BytePool(IDLE_BUFFERS);

  constructor(context: CaptureWorkerContext) {
    this.#context = context;
    this.#rowList = new Uint32Array(1 + context.engine.maxNumBatchedTokens);
  }

  record(step: WorkerStep, commands: CommandRecorder): DeviceRange {
    for (let row = 0; row < step.numTokens; row++) this.#rowList[1 + row] = step.firstRow + row;
    return recordPack(this.#context, commands, this.#rowList, step.numTokens);
  }

  /** Rows of rejected drafts go along: they are stored in slots that are written again before anybody reads them. */
  collect(step: WorkerStep, bytes: Uint8Array): RoutedExpertDeltas {
    const rows = new Uint8Array(this.#buffers.take(bytes.byteLength));
    rows.set(bytes);
    return { rows, numRows: step.numTokens, ...writeStepIndex(step) };
  }

  forget(): void {}

  recycle(rows: ArrayBuffer): void {
    this.#buffers.give(rows);
  }

  liveCounts(): CaptureLiveCounts {
    return { requests: 0, bytes: 0 };
  }

  close(): void {}
}
