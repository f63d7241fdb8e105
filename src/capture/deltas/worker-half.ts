/**
 * deltas, worker half as RFC vllm#38079 proposes it.
 *
 * The worker knows which requests opted in. In a step with one of them it packs the rows of these requests, and no
 * others, on the device, and copies them within the step's own command buffer. They leave with the step's ordinary
 * output. In a step without one it does nothing (L5). It keeps nothing between steps.
 *
 * It differs from the RFC in three things. A request can leave out the rows before a position of its prompt. Rows of
 * rejected drafts stay behind. The rows of all requests travel in one buffer with an index of spans, which crosses the
 * thread without a copy, in place of a dictionary of arrays.
 */

import type { CaptureWorkerContext, CaptureWorkerHalf, DeviceRange, WorkerStep } from '../../contract/capture.ts';
import type { CommandRecorder } from '../../contract/device.ts';
import type { RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import { BytePool } from '../byte-pool.ts';
import { acceptedTokens, capturedRows } from '../captured-spans.ts';
import { RowPacker } from '../pack-rows.ts';
import { rowShape } from '../row-shape.ts';
import { SpanWriter } from '../spans.ts';

export class DeltasWorkerHalf implements CaptureWorkerHalf {
  readonly design = 'deltas';
  readonly #rowBytes: number;
  readonly #packer: RowPacker;
  readonly #buffers: BytePool = new BytePool();

  constructor(context: CaptureWorkerContext) {
    this.#rowBytes = rowShape(context.model).bytesPerRow;
    this.#packer = new RowPacker(context);
  }

  /** Adds the pack kernel to the step's commands. The runner copies what it returns, and waits for it later. */
  record(step: WorkerStep, commands: CommandRecorder): DeviceRange | null {
    return this.#packer.packWanted(step, commands);
  }

  /**
   * The packed rows are on the host. Those behind a request's last accepted token belong to rejected drafts: they are
   * left out, so that the rows that stay are dense.
   */
  collect(step: WorkerStep, bytes: Uint8Array | null, numSampledTokens: Uint32Array): RoutedExpertDeltas | null {
    if (bytes === null) return null;
    const rowBytes = this.#rowBytes;
    const rows = new Uint8Array(this.#buffers.take(bytes.byteLength));
    const spans = new SpanWriter(step.numRequests);
    let packedRow = 0;
    for (let i = 0; i < step.numRequests; i++) {
      const packed = capturedRows(step, i);
      if (packed === 0) continue;
      const skipped = step.tokenCounts[i]! - packed;
      const kept = Math.min(packed, acceptedTokens(step, i, numSampledTokens[i]!) - skipped);
      if (kept > 0) {
        rows.set(bytes.subarray(packedRow * rowBytes, (packedRow + kept) * rowBytes), spans.numRows * rowBytes);
        spans.add(step.requestIndices[i]!, step.tokenStarts[i]! + skipped, kept);
      }
      packedRow += packed;
    }
    return spans.deltas(rows);
  }

  recycle(rows: ArrayBuffer): void {
    this.#buffers.give(rows);
  }
}
