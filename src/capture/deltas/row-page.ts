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
  /** Where the page's rows lie: `numRows` rows of `#slab` from row `#base` on. */
  #slab: RowArray | null;
  #base: number;
  /** What callers were given: the array that they may keep. */
  #lent: RowArray | null = null;

  /** Without a slab the page allocates memory of its own for its first row. */
  constructor(shape: RowShape, numRows: number, first: number, slab: RowArray | null = null, base: number = 0) {
    this.#shape = shape;
    this.numRows = numRows;
    this.first = first;
    this.#end = first;
    this.#slab = slab;
    this.#base = base;
  }

  get end(): number {
    return this.#end;
  }

  /** `[numRows, L, K]`, a view; `null` before the first row. */
  get rows(): RowArray | null {
    if (this.#slab === null || this.#end === this.first) return null;
    const width = this.#shape.entriesPerRow;
    return this.#slab.subarray(this.#base * width, (this.#base + this.numRows) * width);
  }

  get byteLength(): number {
    return this.#slab === null ? 0 : this.numRows * this.#shape.bytesPerRow;
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
    if (this.#slab === null || this.#lent !== null) this.#moveToOwnSlab();
    this.#slab!.set(source.subarray(sourceRow * width, (sourceRow + count) * width), (this.#base + row) * width);
    this.#end = row + count;
  }

  /** The rows for a caller, who may keep them for ever. */
  lend(): RowArray | null {
    return (this.#lent ??= this.rows);
  }

  #moveToOwnSlab(): void {
    const own = allocateRows(this.#shape, this.numRows);
    if (this.rows !== null) own.set(this.rows);
    this.#slab = own;
    this.#base = 0;
    this.#lent = null;
  }
}
