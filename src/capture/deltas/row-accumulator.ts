/** The rows of one request, gathered from the outputs of many steps and from the blocks that it hit. */

import type { PositionRange, RoutedRows } from '../../contract/routed-rows.ts';
import type { RowArray, RowShape } from '../row-shape.ts';
import type { RowPage } from './row-page.ts';
import { TableRows } from './table-rows.ts';

type ChunkList = Pick<RoutedRows, 'chunks' | 'missing'>;

/** Rows `[page.first, end)` of a page are the request's. */
type HeldPage = Readonly<{ page: RowPage; end: number }>;

/**
 *     position     0 ……… 15 │ 16 ……… 31 │ 32 ………
 *     table        [ page 0 ]  [ page 1 ]               rows of the blocks that the request holds, or held last
 *     earlier      [ page 0 ]  [ page 1 ]  [ page 2 ]   rows of the block tables before its preemptions
 *
 * A preempted request computes, or hits, its positions again: their rows take the place of the earlier ones page by page, once a page holds
 * as much of what can be asked for. Until then the earlier rows count, so that an abort meanwhile loses none.
 */
export class RowAccumulator {
  readonly #shape: RowShape;
  readonly #rowsPerPage: number;
  readonly #promptStart: number;
  #table: TableRows;
  #isOpen = true;
  #earlier: (HeldPage | null)[] = [];

  constructor(shape: RowShape, rowsPerPage: number, promptStart: number) {
    this.#shape = shape;
    this.#rowsPerPage = rowsPerPage;
    this.#promptStart = promptStart;
    this.#table = new TableRows(shape, rowsPerPage, promptStart);
  }

  /** The block table of a request that holds blocks and knows `numTokens` tokens. Begins a new one after `closeTable`. */
  table(numTokens: number): TableRows {
    if (this.#isOpen) return this.#table;
    // What has not come to the old table by now is of outputs that were thrown away: those that count are waited for.
    const end = numTokens - 1;
    const numPages = Math.ceil(Math.max(0, end) / this.#rowsPerPage);
    this.#earlier = Array.from({ length: numPages }, (_, i) => this.#page(i, end, Infinity));
    this.#table = new TableRows(this.#shape, this.#rowsPerPage, this.#promptStart);
    this.#isOpen = true;
    return this.#table;
  }

  /** The request loses its blocks. */
  closeTable(): void {
    this.#isOpen = false;
  }

  /**
   * Hands out the rows `[start, end)` without copying one, in constant time: the list of chunks is put together when it is first read, which is
   * the caller's time and not the scheduler's (L6). It is the list of this moment: what arrives later is not in it. The pages are shared.
   */
  take(start: number, end: number): RoutedRows {
    const { arrivedEnd, hasOutput } = this.#table;
    // Before the table's first output even the pages of hit blocks may be waiting for rows: the list is put together at once.
    let list: ChunkList | null = hasOutput ? null : this.#chunkList(start, end, Infinity);
    const chunkList = (): ChunkList => (list ??= this.#chunkList(start, end, arrivedEnd));
    return {
      start,
      count: Math.max(0, end - start),
      numLayers: this.#shape.numLayers,
      topK: this.#shape.topK,
      dtype: this.#shape.dtype,
      rowsPerChunk: this.#rowsPerPage,
      get chunks() {
        return chunkList().chunks;
      },
      get missing() {
        return chunkList().missing;
      },
    };
  }

  /** Adds every page that the request holds to `pages`. */
  collectPages(pages: Set<RowPage>): void {
    for (const page of this.#table.pages) if (page) pages.add(page);
    for (const held of this.#earlier) if (held) pages.add(held.page);
  }

  #chunkList(start: number, end: number, arrivedEnd: number): ChunkList {
    const chunks: (RowArray | null)[] = [];
    const missing: PositionRange[] = [];
    const numRows = this.#rowsPerPage;
    let known = start;
    for (let i = 0, at = 0; at < end; i++, at += numRows) {
      const held = at + numRows > start ? this.#page(i, end, arrivedEnd) : null;
      chunks.push(held === null ? null : held.page.lend());
      if (held === null) continue;
      const first = Math.min(end, at + held.page.first);
      if (first > known) missing.push([known, first]);
      known = Math.max(known, at + held.end);
    }
    if (known < end) missing.push([known, end]);
    return { chunks, missing };
  }

  /** Of the pages for block `i` the one with more of the rows before position `end`; of equals the newer. */
  #page(i: number, end: number, arrivedEnd: number): HeldPage | null {
    const page = this.#table.pages[i] ?? null;
    const ownEnd = page === null ? 0 : this.#table.ownRowsEnd(i, arrivedEnd);
    const newer = page === null || ownEnd <= page.first ? null : { page, end: ownEnd };
    const older = this.#earlier[i] ?? null;
    if (newer === null || older === null) return newer ?? older;
    const from = this.#table.skippedRows(i);
    const to = Math.min(this.#rowsPerPage, end - i * this.#rowsPerPage);
    return countRows(newer, from, to) >= countRows(older, from, to) ? newer : older;
  }
}

/** How many of the rows `[from, to)` are there. */
function countRows({ page, end }: HeldPage, from: number, to: number): number {
  return Math.max(0, Math.min(to, end) - Math.max(from, page.first));
}
