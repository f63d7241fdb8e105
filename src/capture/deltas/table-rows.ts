/** The rows of one block table: of what a request computes and hits between an admission and the loss of its blocks. */

import type { RowArray, RowShape } from '../row-shape.ts';
import { allocateRows } from '../row-shape.ts';
import { RowPage } from './row-page.ts';

/**
 * Pages that one output fills share an allocation, of this many at most: a prefill step makes hundreds, and each array of its own is three objects
 * for the garbage collector. A page that outlives its neighbours pins so much and no more, and never another request's.
 */
const PAGES_PER_SLAB = 8;

/**
 *     block table    [ 5 ][ 9 ][ 2 ][ 7 ]
 *     pages          [ p ][ p ][ q ][ q ]      p: of hit blocks, shared, or `null` if the block has no rows; q: computed here
 *
 * A page is as long as a block, so page i holds exactly the rows of the table's i-th block. Steps in flight keep the table for which they were
 * scheduled: their rows belong to those blocks, even if the request has another table by then, or is over.
 */
export class TableRows {
  readonly pages: (RowPage | null)[] = [];
  readonly #shape: RowShape;
  readonly #rowsPerPage: number;
  readonly #promptStart: number;
  /** An output of the table has reached its owner. */
  hasOutput = false;
  /** Rows computed for the table have arrived up to here. */
  arrivedEnd = 0;
  #ownEnd = Infinity;

  constructor(shape: RowShape, rowsPerPage: number, promptStart: number) {
    this.#shape = shape;
    this.#rowsPerPage = rowsPerPage;
    this.#promptStart = promptStart;
  }

  /** The first rows of block `i` that its owner does not want. */
  skippedRows(i: number): number {
    return Math.min(this.#rowsPerPage, Math.max(0, this.#promptStart - i * this.#rowsPerPage));
  }

  /** The page of block `i`, which is computed here. */
  page(i: number): RowPage {
    const existing = this.pages[i];
    if (existing) return existing;
    while (this.pages.length < i) this.pages.push(null);
    const page = new RowPage(this.#shape, this.#rowsPerPage, this.skippedRows(i));
    this.pages[i] = page;
    return page;
  }

  /** Block `i` was found in the prefix cache, with these rows. */
  hit(i: number, page: RowPage | null): void {
    while (this.pages.length < i) this.pages.push(null);
    this.pages[i] = page;
  }

  /** The KV of `[from, to)` came without rows. `from` is the first of a block; the block of `to` may be computed on from there. */
  leaveOut(from: number, to: number): void {
    const numRows = this.#rowsPerPage;
    for (let i = from / numRows; i * numRows < to; i++) {
      const first = Math.max(this.skippedRows(i), to - i * numRows);
      this.hit(i, first < numRows ? new RowPage(this.#shape, numRows, first) : null);
    }
  }

  /** The output that computed `position` was thrown away: from there on, or altogether if it was the first, the rows are others' only. */
  disown(position: number): void {
    this.#ownEnd = Math.min(this.#ownEnd, this.hasOutput ? position : 0);
  }

  /** Where the rows of page `i` end that stand, are the owner's, and are those of positions before `end`. */
  ownRowsEnd(i: number, end: number): number {
    return Math.min(this.pages[i]?.end ?? 0, Math.max(0, Math.min(this.#ownEnd, end) - i * this.#rowsPerPage));
  }

  /** Copies `count` rows of `source`, from its row `sourceRow` on, to the positions from `position` on: O(count). */
  write(position: number, count: number, source: RowArray, sourceRow: number): void {
    const end = position + count;
    this.#reserve(Math.floor(position / this.#rowsPerPage), Math.ceil(end / this.#rowsPerPage));
    let row = sourceRow;
    for (let at = position; at < end;) {
      const i = Math.floor(at / this.#rowsPerPage);
      const pageStart = i * this.#rowsPerPage;
      const segment = Math.min(end, pageStart + this.#rowsPerPage) - at;
      this.page(i).write(at - pageStart, segment, source, row);
      at += segment;
      row += segment;
    }
    this.arrivedEnd = end;
  }

  /** Makes the pages of blocks `[first, end)` that do not exist yet. */
  #reserve(first: number, end: number): void {
    while (this.pages.length < first) this.pages.push(null);
    for (let i = first; i < end;) {
      if (this.pages[i]) {
        i++;
        continue;
      }
      const slabEnd = Math.min(end, i + PAGES_PER_SLAB);
      const slab = slabEnd - i > 1 ? allocateRows(this.#shape, (slabEnd - i) * this.#rowsPerPage) : null;
      for (let base = 0; i < slabEnd; i++, base += this.#rowsPerPage) {
        this.pages[i] ??= new RowPage(this.#shape, this.#rowsPerPage, this.skippedRows(i), slab, base);
      }
    }
  }
}
