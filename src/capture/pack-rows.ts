/** The gather that every asynchronous design begins with. */

import type { CaptureWorkerContext, DeviceRange } from '../contract/capture.ts';
import type { CommandRecorder } from '../contract/device.ts';
import { packedBytes } from '../kernels/model/kernel-shape.ts';
import { packWorkgroups } from '../kernels/model/kernel-set.ts';

/**
 * Packs rows `list[1 … numRows]` of the device buffer, dense and narrow, behind what `commands` recorded so far. Sets
 * `list[0]`. Answers the bytes to read back: `numRows · L · K` in the row dtype, rounded up to a word.
 */
export function recordPack(
  { device, model, pack }: CaptureWorkerContext,
  commands: CommandRecorder,
  list: Uint32Array,
  numRows: number,
): DeviceRange {
  list[0] = numRows;
  device.write(pack.rows, 0, list.subarray(0, 1 + numRows));
  commands.dispatch(pack.bound, packWorkgroups(model, numRows));
  return { buffer: pack.packed, byteLength: packedBytes(model, numRows) };
}
