/** The rows of a step's payload, as sources of copies. */

import type { RoutedExpertDeltas } from '../contract/model-runner-output.ts';
import type { RowArray, RowShape } from './row-shape.ts';
import { allocateRows, viewRows } from './row-shape.ts';
import { SPAN_LENGTH } from './spans.ts';

/** Up to so many rows a span it costs less to move all rows than to make a view for each span of one row. */
const MOST_ROWS_PER_SPAN = 8;

/**
 * To make a view takes three times as long as to copy a row, and every decode brings one row. A payload of decodes is
 * therefore copied as a whole, to memory of which there is a view for each row:
 *
 *     payload    [ row ][ row ][ row ] …        another buffer in each step
 *                   │ one copy
 *     memory     [ row ][ row ][ row ] … ……     stays, and so do
 *     views         ▲      ▲      ▲
 */
export class PayloadRows {
  readonly #shape: RowShape;
  #payload: RowArray;
  #memory: RowArray;
  readonly #views: RowArray[] = [];
  #isInMemory = false;

  constructor(shape: RowShape) {
    this.#shape = shape;
    this.#memory = this.#payload = allocateRows(shape, 0);
  }

  /** The payload must stay as it is as long as its rows are asked for. */
  load({ rows, numRows, indexLength }: RoutedExpertDeltas): void {
    this.#payload = viewRows(this.#shape, rows, numRows);
    this.#isInMemory = numRows * SPAN_LENGTH <= MOST_ROWS_PER_SPAN * indexLength;
    if (!this.#isInMemory) return;
    if (this.#memory.length < this.#payload.length) {
      this.#memory = allocateRows(this.#shape, 2 * numRows);
      this.#views.length = 0;
    }
    this.#memory.set(this.#payload);
  }

  /** The rows `[row, row + count)` of the payload. A view, valid until the next payload is loaded. */
  rows(row: number, count: number): RowArray {
    const { entriesPerRow } = this.#shape;
    if (count > 1 || !this.#isInMemory)
      return this.#payload.subarray(row * entriesPerRow, (row + count) * entriesPerRow);
    while (this.#views.length <= row) {
      const from = this.#views.length * entriesPerRow;
      this.#views.push(this.#memory.subarray(from, from + entriesPerRow));
    }
    return this.#views[row]!;
  }
}
