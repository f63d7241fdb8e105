/** What a `slot-store` worker sends: every row of the step, and behind the index of spans the KV slot of each row. */

import type { WorkerStep } from '../../contract/capture.ts';
import type { RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import { SPAN_LENGTH } from '../spans.ts';

type Step = Pick<
  WorkerStep,
  'numRequests' | 'numTokens' | 'requestIndices' | 'tokenStarts' | 'tokenCounts' | 'slotMapping'
>;

/**
 *     index   [ request, first position, number of rows ] × numRequests [ slot × numRows ]
 *     rows    [ row, row, …  of the first request ][ … of the second ] …
 *
 * Requests stand in the *worker's* order.
 */
export function slottedDeltas(step: Step, rows: Uint8Array): RoutedExpertDeltas {
  const { numRequests, numTokens } = step;
  const index = new Uint32Array(numRequests * SPAN_LENGTH + numTokens);
  for (let i = 0; i < numRequests; i++) {
    index.set([step.requestIndices[i]!, step.tokenStarts[i]!, step.tokenCounts[i]!], i * SPAN_LENGTH);
  }
  index.set(step.slotMapping.subarray(0, numTokens), numRequests * SPAN_LENGTH);
  return { rows, numRows: numTokens, index, indexLength: index.length };
}

/** The two parts of the index. */
export function partsOf({ index, indexLength, numRows }: RoutedExpertDeltas): Readonly<{
  spans: Pick<RoutedExpertDeltas, 'index' | 'indexLength'>;
  slots: Uint32Array;
}> {
  const slotsAt = indexLength - numRows;
  return { spans: { index, indexLength: slotsAt }, slots: index.subarray(slotsAt, indexLength) };
}
