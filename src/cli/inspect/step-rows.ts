/** Passes that the caller says there are, where a form does not. */

import type { Capture } from '../../rows/captures/capture.ts';
import { captureSource } from '../../rows/captures/capture-source.ts';
import { positionsAsPasses } from '../../rows/captures/sub-capture.ts';
import type { OpenedRows } from '../../rows/files/open-rows.ts';
import type { RowSource } from '../../rows/row-batch.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';

/** `positions`: pass p is row p of every request. A number: each pass is so many rows, in the order of the file. */
export type SaidPasses = 'positions' | number;

/** @throws BAD_VALUE for `positions` of rows that are not held as a whole */
export function withPasses({ source, capture }: OpenedRows, passes: SaidPasses): OpenedRows {
  if (passes !== 'positions') return { source: passesOfRows(source, passes), capture: null };
  if (capture === null || !capture.knowsRequests) {
    throw RoutedExpertsError.of('BAD_VALUE', '--passes', 'positions', 'rows per pass: requests are unknown here');
  }
  const known: Capture = positionsAsPasses(capture);
  return { source: captureSource(known), capture: known };
}

function passesOfRows(source: RowSource, rowsPerPass: number): RowSource {
  const width = source.shape.numLayers * source.shape.topK;
  return {
    ...source,
    knows: { ...source.knows, steps: true },
    async *batches() {
      let left = rowsPerPass;
      for await (const batch of source.batches()) {
        for (let row = 0; row < batch.numRows;) {
          const numRows = Math.min(left, batch.numRows - row);
          const from = row * width;
          left -= numRows;
          yield {
            ids: batch.ids.subarray(from, from + numRows * width),
            numRows,
            startsRequest: batch.startsRequest && row === 0,
            endsStep: left === 0,
            placeOf: (entry) => batch.placeOf(from + entry),
          };
          row += numRows;
          if (left === 0) left = rowsPerPass;
        }
      }
    },
  };
}
