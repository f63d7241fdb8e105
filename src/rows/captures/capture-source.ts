/** A capture as a source of rows, request after request. */

import type { RowSource } from '../row-batch.ts';
import type { Capture } from './capture.ts';
import { rowWidth } from './capture.ts';

/** Passes are left to `capture.steps`: they do not stand one after the other in the rows of requests. */
export function captureSource(capture: Capture): RowSource {
  const { ids, layers, topK, numExperts, requests, steps } = capture;
  const width = rowWidth(capture);
  return {
    form: 'capture',
    shape: { layers, numLayers: layers.length, topK, numExperts },
    knows: {
      requests: capture.knowsRequests,
      promptLengths: requests.every(({ promptLen }) => promptLen !== null),
      steps: steps !== null,
      tokens: requests.every(({ tokens }) => tokens !== null),
    },
    async *batches() {
      for (const { id, firstRow, numRows } of requests) {
        yield {
          ids: ids.subarray(firstRow * width, (firstRow + numRows) * width),
          numRows,
          startsRequest: true,
          endsStep: false,
          placeOf: (entry) => `request ${id}, row ${Math.floor(entry / width)}`,
        };
      }
    },
  };
}
