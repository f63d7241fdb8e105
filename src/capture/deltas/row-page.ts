/** The rows of one KV block, as long as one block table holds it. */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RowArray, RowShape } from '../row-shape.ts';
import { allocateRows } from '../row-shape.ts';

/**
 *     row of the block   0 ──── first ──────── end ──────── numRows
 *                        │ never  │  stand      │  to come  │
 *
 * Rows come in order and each of them once: a block is computed from front to back, and who computes it anew does so in another page.
 * Rows before `first` are those before the producer's `routedExpertsPromptStart`, which nobody computes.
 *
 * Invariant: `[first, end)` never change again. So a page can be held by any number of requests and callers, without a copy; a caller's array
 * of a page that is not full yet is left behind by the next write.
 */
export class RowPage {
  readonly numRows: number;
  readonly first: number;
  readonly #shape: RowShape;
  #end: number;
  #rows: RowArray | null = null;
  #isLent = false;

  constructor(shape: RowShape, numRows: number, first: number) {
    this.#shape = shape;
    this.numRows = numRows;
    this.first = first;
    this.#end = first;
  }

  get end(): number {
    return this.#end;
  }

  /** `[numRows, L, K]`; `null` before the first row. */
  get rows(): RowArray | null {
    return this.#rows;
  }

  get byteLength(): number {
    return this.#rows?.byteLength ?? 0;
  }

  /** The next `count` rows, copied from row `sourceRow` of `source` on. Throws INVARIANT unless `row` is the next one. */
  write(row: number, count: number, source: RowArray, sourceRow: number): void {
    if (row !== this.#end || row + count > this.numRows) {
      throw RoutedExpertsError.of(
        'INVARIANT',
        `rows [${row}, ${row + count}) of a block arrived where [${this.#end}, ${this.numRows}) were due`,
      );
    }
    const width = this.#shape.entriesPerRow;
    if (this.#rows === null) this.#rows = allocateRows(this.#shape, this.numRows);
    else if (this.#isLent) this.#rows = this.#rows.slice();
    this.#isLent = false;
    this.#rows.set(source.subarray(sourceRow * width, (sourceRow + count) * width), row * width);
    this.#end = row + count;
  }

  /** The rows for a caller, who may keep them for ever. */
  lend(): RowArray | null {
    this.#isLent = true;
    return this.#rows;
  }
}
