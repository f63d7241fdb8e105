/**
 * How the guard of a worker half tells the guard of the engine half that a hook has failed: a word in front of the
 * index of what `collect` returned.
 *
 *     index   [ 0 │ the half's own index ]     rows   the half's own, untouched
 *             [ 1 ]                            rows   the message of the failure, in UTF-8
 */

import type { RoutedExpertDeltas } from '../../contract/model-runner-output.ts';

const ROWS = 0;
const FAILURE = 1;

export function wrapDeltas(deltas: RoutedExpertDeltas): RoutedExpertDeltas {
  const index = new Uint32Array(1 + deltas.indexLength);
  index[0] = ROWS;
  index.set(deltas.index.subarray(0, deltas.indexLength), 1);
  return { ...deltas, index, indexLength: index.length };
}

export function wrapFailure(message: string): RoutedExpertDeltas {
  const rows = Uint8Array.from(new TextEncoder().encode(message));
  return { rows, numRows: 0, index: Uint32Array.of(FAILURE), indexLength: 1 };
}

/** What the worker half's `collect` returned, or the message of what failed in it. */
export function unwrapDeltas(deltas: RoutedExpertDeltas): RoutedExpertDeltas | string {
  if (deltas.index[0] === FAILURE) return new TextDecoder().decode(deltas.rows);
  const index = deltas.index.subarray(1, deltas.indexLength);
  return { ...deltas, index, indexLength: index.length };
}
