/** Rows that are held as a whole, with what is known of their requests and forward passes. */

import type { RowIds } from '../row-batch.ts';

export type CapturedRequest = Readonly<{
  id: string;
  /** Its rows are `[firstRow, firstRow + numRows)` of the capture. */
  firstRow: number;
  numRows: number;
  /** `null`: unknown. */
  promptLen: number | null;
  /** Token ids, at least one for each row; `null`: unknown. */
  tokens: ArrayLike<number> | null;
}>;

/** Rows of one forward pass: spans of the capture's rows. */
export type CapturedStep = readonly (readonly [firstRow: number, numRows: number])[];

/** `ids` is `[numRows, layers.length, topK]`, request after request: *row order*. */
export type Capture = Readonly<{
  name: string;
  numExperts: number;
  topK: number;
  layers: readonly number[];
  numRows: number;
  ids: RowIds;
  /** Where requests are unknown, one request stands for all rows. */
  requests: readonly CapturedRequest[];
  knowsRequests: boolean;
  /** `null`: unknown. */
  steps: readonly CapturedStep[] | null;
}>;

/** Entries of one row. */
export function rowWidth({ layers, topK }: Pick<Capture, 'layers' | 'topK'>): number {
  return layers.length * topK;
}
