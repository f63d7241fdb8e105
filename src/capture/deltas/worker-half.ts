/**
 * deltas, worker half: in a step with an opted-in request, that request's rows (and nothing else) are packed on the
 * device, copied within the step's own command buffer, and leave with the step's output. In a step without one it does
 * nothing (L5).
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
import { acceptedTokens, capturedRows, listCapturedRows, skippedRows } from '../captured-spans.ts';
import { recordPack } from '../pack-rows.ts';
import type { RowShape } from '../row-shape.ts';
import { rowShape } from '../row-shape.ts';
import { SPAN_LENGTH } from './span.ts';

/** Row buffers that may be under way at once: one per step in flight, and as many on the way back. */
const IDLE_BUFFERS = 8;

export class DeltasWorkerHalf implements CaptureWorkerHalf {
  readonly design = 'deltas';
  readonly #context: CaptureWorkerContext;
  readonly #shape: RowShape;
  readonly #rowList: Uint32Array;
  readonly #buffers: BytePool = new BytePool(IDLE_BUFFERS);

  constructor(context: CaptureWorkerContext) {
    this.#context = context;
    this.#shape = rowShape(context.model);
    this.#rowList = new Uint32Array(1 + context.engine.maxNumBatchedTokens);
  }

  record(step: WorkerStep, commands: CommandRecorder): DeviceRange | null {
    const numRows = listCapturedRows(step, this.#rowList);
    return numRows === 0 ? null : recordPack(this.#context, commands, this.#rowList, numRows);
  }

  /**
   * Rows behind the last accepted token belong to rejected drafts: they are left out, so that the rows that stay are
   * dense.
   */
  collect(step: WorkerStep, bytes: Uint8Array | null, numSampledTokens: Uint32Array): RoutedExpertDeltas | null {
    if (bytes === null) return null;
    const rowBytes = this.#shape.bytesPerRow;
    const rows = new Uint8Array(this.#buffers.take(bytes.byteLength));
    const index = new Uint32Array(step.numRequests * SPAN_LENGTH);
    let indexLength = 0;
    let packedRow = 0;
    let numRows = 0;
    for (let i = 0; i < step.numRequests; i++) {
      const packed = capturedRows(step, i);
      if (packed === 0) continue;
      const skipped = skippedRows(step, i);
      const kept = Math.min(packed, acceptedTokens(step, i, numSampledTokens[i]!) - skipped);
      if (kept > 0) {
        rows.set(bytes.subarray(packedRow * rowBytes, (packedRow + kept) * rowBytes), numRows * rowBytes);
        index[indexLength++] = step.requestIndices[i]!;
        index[indexLength++] = step.tokenStarts[i]! + skipped;
        index[indexLength++] = kept;
        numRows += kept;
      }
      packedRow += packed;
    }
    return { rows, numRows, index, indexLength };
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
