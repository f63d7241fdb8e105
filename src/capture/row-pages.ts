/** The rows of one request by position, in pages; for designs that hold them until it ends. */

import type { RoutedRows } from '../contract/routed-rows.ts';
import { PositionRanges } from './position-ranges.ts';
import type { RowArray, RowShape } from './row-shape.ts';
import { allocateRows } from './row-shape.ts';

/**
 *     position   0 ……… 15 │ 16 ……… 31 │ 32 ………        rowsPerPage = 16
 *     pages      null       [ page 1 ]  [ page 2 ]     no page where no row was written
 *
 * A row that is written again overlays the row of before. Invariant: a position is present if and only if its row was
 * written.
 */
export class RowPages {
  readonly #shape: RowShape;
  readonly #rowsPerPage: number;
  readonly #pages: (RowArray | null)[] = [];
  readonly #present: PositionRanges = new PositionRanges();
  #numPages = 0;

  constructor(shape: RowShape, rowsPerPage: number) {
    this.#shape = shape;
    this.#rowsPerPage = rowsPerPage;
  }

  get byteLength(): number {
    return this.#numPages * this.#rowsPerPage * this.#shape.bytesPerRow;
  }

  /** Copies rows `[sourceRow, sourceRow + count)` of `source` to the positions from `position` on: O(count). */
  write(position: number, count: number, source: RowArray, sourceRow: number): void {
    const width = this.#shape.entriesPerRow;
    const end = position + count;
    for (let at = position; at < end;) {
      const pageIndex = Math.floor(at / this.#rowsPerPage);
      const to = Math.min(end, (pageIndex + 1) * this.#rowsPerPage);
      const row = sourceRow + at - position;
      const rows = source.subarray(row * width, (row + to - at) * width);
      this.#page(pageIndex).set(rows, (at - pageIndex * this.#rowsPerPage) * width);
      at = to;
    }
    this.#present.add(position, end);
  }

  /** Hands out the rows `[start, end)` without copying one; the caller owns the pages from here on. */
  take(start: number, end: number): RoutedRows {
    const { numLayers, topK, dtype } = this.#shape;
    return {
      start,
      count: Math.max(0, end - start),
      numLayers,
      topK,
      dtype,
      rowsPerChunk: this.#rowsPerPage,
      chunks: this.#pages,
      missing: this.#present.gaps(start, end),
    };
  }

  #page(pageIndex: number): RowArray {
    const existing = this.#pages[pageIndex];
    if (existing) return existing;
    while (this.#pages.length < pageIndex) this.#pages.push(null);
    const page = allocateRows(this.#shape, this.#rowsPerPage);
    this.#pages[pageIndex] = page;
    this.#numPages++;
    return page;
  }
}
