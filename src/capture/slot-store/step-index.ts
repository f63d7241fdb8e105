/**
 * The index of a `slot-store` payload: who computed which positions, in the *worker's* order, and the KV slot of every
 * row.
 *
 *     index   [ n ][ request, first position, number of rows ] × n [ slot × numRows ]
 *     rows    [ row, row, …  of the first request ][ … of the second ] …
 */

import type { WorkerStep } from '../../contract/capture.ts';

export const SPANS_AT = 1;
export const SPAN_LENGTH = 3;

export type SlotStoreIndex = Readonly<{ index: Uint32Array; indexLength: number }>;

type Step = Pick<
  WorkerStep,
  'numRequests' | 'numTokens' | 'requestIndices' | 'tokenStarts' | 'tokenCounts' | 'slotMapping'
>;

/** Where the slots begin in the index of a step of `numRequests`. */
export function slotsAt(numRequests: number): number {
  return SPANS_AT + SPAN_LENGTH * numRequests;
}

export function writeStepIndex(step: Step): SlotStoreIndex {
  const indexLength = slotsAt(step.numRequests) + step.numTokens;
  const index = new Uint32Array(indexLength);
  index[0] = step.numRequests;
  let at = SPANS_AT;
  for (let i = 0; i < step.numRequests; i++) {
    index[at++] = step.requestIndices[i]!;
    index[at++] = step.tokenStarts[i]!;
    index[at++] = step.tokenCounts[i]!;
  }
  index.set(step.slotMapping.subarray(0, step.numTokens), at);
  return { index, indexLength };
}
