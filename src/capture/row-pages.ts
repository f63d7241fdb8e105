/** The rows of one request by position, in pages. */

import type { RoutedRows } from '../contract/routed-rows.ts';
import { PositionRanges } from './position-ranges.ts';
import { presentPieces, routedRows } from './routed-rows.ts';
import type { RowArray, RowForm } from './row-shape.ts';
import { allocateRows } from './row-shape.ts';

/**
 *     position   0 ……… 15 │ 16 ……… 31 │ 32 ………        rowsPerPage = 16
 *     pages      null       [ page 1 ]  [ page 2 ]     no page where no row was written
 *
 * A row that is written again overlays the earlier one. Invariant: a position is present if and only if its row was
 * written.
 */
export class RowPages {
  readonly #form: RowForm;
  readonly #rowsPerPage: number;
  readonly #pages: (RowArray | null)[] = [];
  readonly #present: PositionRanges = new PositionRanges();
  #byteLength = 0;

  constructor(form: RowForm, rowsPerPage: number) {
    this.#form = form;
    this.#rowsPerPage = rowsPerPage;
  }

  get byteLength(): number {
    return this.#byteLength;
  }

  /** Copies `count` rows to the positions from `position` on: O(count). */
  write(position: number, count: number, rows: RowArray): void {
    const width = this.#form.numLayers * this.#form.topK;
    const end = position + count;
    for (let at = position; at < end;) {
      const pageIndex = Math.floor(at / this.#rowsPerPage);
      const to = Math.min(end, (pageIndex + 1) * this.#rowsPerPage);
      const ofPage = to - at === count ? rows : rows.subarray((at - position) * width, (to - position) * width);
      this.#page(pageIndex).set(ofPage, (at - pageIndex * this.#rowsPerPage) * width);
      at = to;
    }
    this.#present.add(position, end);
  }

  /** The rows `[start, end)`, as a list of the pages: no row is copied. The caller owns the pages from here on. */
  take(start: number, end: number): RoutedRows {
    const missing = this.#present.gaps(start, end);
    return routedRows(this.#form, start, end, { rowsPerChunk: this.#rowsPerPage, chunks: this.#pages, missing });
  }

  /**
   * Begins with the pages of `rows`, which belong to this object from here on: O(pages). A page that was cut to its
   * rows is copied to its full length.
   */
  adopt(rows: RoutedRows): void {
    const length = this.#rowsPerPage * rows.numLayers * rows.topK;
    for (const [i, chunk] of rows.chunks.entries()) {
      if (chunk === null || chunk.length === length) this.#pages.push(chunk);
      else this.#page(i).set(chunk);
    }
    for (const { position, count } of presentPieces(rows)) this.#present.add(position, position + count);
  }

  #page(pageIndex: number): RowArray {
    const existing = this.#pages[pageIndex];
    if (existing) return existing;
    while (this.#pages.length < pageIndex) this.#pages.push(null);
    const page = allocateRows(this.#form, this.#rowsPerPage);
    this.#pages[pageIndex] = page;
    this.#byteLength += page.byteLength;
    return page;
  }
}
