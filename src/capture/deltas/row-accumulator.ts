/** The rows of one request, gathered from the outputs of many steps. */

import type { RoutedRows } from '../../contract/routed-rows.ts';
import { PositionRanges } from '../position-ranges.ts';
import type { RowArray, RowShape } from '../row-shape.ts';
import { allocateRows } from '../row-shape.ts';

/**
 * Rows live in pages of `rowsPerPage` rows, addressed by absolute position:
 *
 *     position   0 ……… 15 │ 16 ……… 31 │ 32 ………
 *     pages      [ page 0 ]  [ page 1 ]  [ page 2 ]
 *
 * Each page is an allocation of its own: the memory of a request is not pinned by that of its neighbours in a step. A row is written at
 * its position, so that a recomputation after preemption overlays the row instead of adding one. A page is as long as a KV block, and so
 * page i holds exactly the rows of the request's i-th block.
 *
 * Invariant: a position is in `#present` if and only if its page exists and its row was written.
 */
export class RowAccumulator {
  readonly #shape: RowShape;
  readonly #rowsPerPage: number;
  readonly #pages: (RowArray | null)[] = [];
  readonly #present: PositionRanges = new PositionRanges();
  #numPages = 0;

  constructor(shape: RowShape, rowsPerPage: number) {
    this.#shape = shape;
    this.#rowsPerPage = rowsPerPage;
  }

  get numPages(): number {
    return this.#numPages;
  }

  /** Copies `count` rows of `source`, from its row `sourceRow` on, to the positions from `position` on: O(count). */
  write(position: number, count: number, source: RowArray, sourceRow: number): void {
    const width = this.#shape.entriesPerRow;
    const end = position + count;
    let row = sourceRow;
    for (let at = position; at < end;) {
      const pageIndex = Math.floor(at / this.#rowsPerPage);
      const segment = Math.min(end, (pageIndex + 1) * this.#rowsPerPage) - at;
      const offset = (at - pageIndex * this.#rowsPerPage) * width;
      this.#page(pageIndex).set(source.subarray(row * width, (row + segment) * width), offset);
      at += segment;
      row += segment;
    }
    this.#present.add(position, end);
  }

  /** Hands out the rows `[start, end)` without copying one: the caller owns the pages from here on. */
  take(start: number, end: number): RoutedRows {
    return {
      start,
      count: Math.max(0, end - start),
      numLayers: this.#shape.numLayers,
      topK: this.#shape.topK,
      dtype: this.#shape.dtype,
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
