/** The gather that every asynchronous design begins with. */

import type { CaptureWorkerContext, DeviceRange, WorkerStep } from '../contract/capture.ts';
import type { CommandRecorder } from '../contract/device.ts';
import { packedBytes } from '../kernels/model/kernel-shape.ts';
import { packWorkgroups } from '../kernels/model/kernel-set.ts';
import { capturedRows } from './captured-spans.ts';

/**
 * Packs rows of the device buffer, dense and narrow, behind what was recorded so far. Returns the bytes to read back:
 * `numRows · L · K` ids in the row dtype, rounded up to a word.
 */
export class RowPacker {
  readonly #context: CaptureWorkerContext;
  /** How many rows, then their numbers. */
  readonly #list: Uint32Array;

  constructor(context: CaptureWorkerContext) {
    this.#context = context;
    this.#list = new Uint32Array(1 + context.engine.maxNumBatchedTokens);
  }

  /** Every row of the step, opted in or not. */
  packAll(step: WorkerStep, commands: CommandRecorder): DeviceRange {
    for (let row = 0; row < step.numTokens; row++) this.#list[1 + row] = step.firstRow + row;
    return this.#pack(step.numTokens, commands);
  }

  /** The captured rows of the requests that opted in; `null` if there are none. */
  packWanted(step: WorkerStep, commands: CommandRecorder): DeviceRange | null {
    let numRows = 0;
    for (let i = 0; i < step.numRequests; i++) {
      const count = capturedRows(step, i);
      const first = step.rowStarts[i]! + step.tokenCounts[i]! - count;
      for (let row = 0; row < count; row++) this.#list[++numRows] = first + row;
    }
    return numRows === 0 ? null : this.#pack(numRows, commands);
  }

  #pack(numRows: number, commands: CommandRecorder): DeviceRange {
    const { device, model, pack } = this.#context;
    this.#list[0] = numRows;
    device.write(pack.rows, 0, this.#list.subarray(0, 1 + numRows));
    commands.dispatch(pack.bound, packWorkgroups(model, numRows));
    return { buffer: pack.packed, byteLength: packedBytes(model, numRows) };
  }
}
