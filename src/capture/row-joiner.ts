/**
 * Joins what designs that emit as they go attach to a request's outputs. Runs with the frontend, outside the
 * scheduler's step.
 */

import { RoutedExpertsError } from '../contract/errors.ts';
import type { PositionRange, RoutedRows } from '../contract/routed-rows.ts';
import type { RowArray } from './row-shape.ts';
import { allocateRows } from './row-shape.ts';

/** Rows of a page where the first piece brings no pages that can be filled up. */
const ROWS_PER_PAGE = 64;

/**
 * Pieces come in order of position, each behind the one before it:
 *
 *     pieces   ├ prompt rows, in pages ┼ 1 row ┼ 2 rows ┼ …
 *     joined   [ page 0 ][ page 1 ][ page 2 ……………… ]          the first piece's pages are kept, and later rows fill them up
 *
 * A design that hands out everything at the end makes one piece, which passes through untouched. What lies between two
 * pieces is missing (L4). Invariant: the joined rows are `[start, end)` of what was added, and every page written to
 * belongs to the joiner.
 */
export class RowJoiner {
  #first: RoutedRows | null = null;
  #numPieces = 0;
  #end = 0;
  #rowsPerPage = ROWS_PER_PAGE;
  #pages: (RowArray | null)[] = [];
  readonly #missing: PositionRange[] = [];

  /**
   * Takes over a piece: O(1) for the first, O(rows of the piece) for those behind it, and once O(pages) of the first.
   * Throws INVARIANT if it overlaps those before it (L3).
   */
  add(piece: RoutedRows): void {
    this.#numPieces++;
    if (this.#first === null) {
      this.#first = piece;
      this.#end = piece.start + piece.count;
      return;
    }
    if (this.#numPieces === 2) this.#adopt(this.#first);
    if (piece.start < this.#end) {
      const what = `rows from ${piece.start} on were handed out after rows up to ${this.#end}`;
      throw RoutedExpertsError.of('INVARIANT', what);
    }
    if (piece.start > this.#end) this.#miss([this.#end, piece.start]);
    for (const range of piece.missing) this.#miss(range);
    this.#write(piece);
    this.#end = piece.start + piece.count;
  }

  /** All rows so far, or `null` if none were added. Nothing is copied: add no piece after the caller took it. */
  get rows(): RoutedRows | null {
    const first = this.#first;
    if (first === null || this.#numPieces === 1) return first;
    return {
      start: first.start,
      count: this.#end - first.start,
      numLayers: first.numLayers,
      topK: first.topK,
      dtype: first.dtype,
      rowsPerChunk: this.#rowsPerPage,
      chunks: this.#pages,
      missing: this.#missing,
    };
  }

  #adopt(first: RoutedRows): void {
    this.#missing.push(...first.missing);
    if (first.chunkOrigin === undefined) {
      this.#pages = [...first.chunks];
      this.#rowsPerPage = first.rowsPerChunk;
    } else this.#write(first);
  }

  #miss(range: PositionRange): void {
    const last = this.#missing.at(-1);
    if (last !== undefined && last[1] === range[0]) this.#missing[this.#missing.length - 1] = [last[0], range[1]];
    else this.#missing.push(range);
  }

  #write(piece: RoutedRows): void {
    const width = piece.numLayers * piece.topK;
    const origin = piece.chunkOrigin ?? 0;
    const end = piece.start + piece.count;
    for (let position = piece.start; position < end;) {
      const place = position - origin;
      const chunkIndex = Math.floor(place / piece.rowsPerChunk);
      const pageIndex = Math.floor(position / this.#rowsPerPage);
      const chunkEnd = origin + (chunkIndex + 1) * piece.rowsPerChunk;
      const to = Math.min(end, chunkEnd, (pageIndex + 1) * this.#rowsPerPage);
      const chunk = piece.chunks[chunkIndex];
      if (chunk) {
        const from = (place - chunkIndex * piece.rowsPerChunk) * width;
        const target = (position - pageIndex * this.#rowsPerPage) * width;
        this.#page(piece, pageIndex).set(chunk.subarray(from, from + (to - position) * width), target);
      }
      position = to;
    }
  }

  /** The page, at its full length: the last one of the first piece may have been cut to its rows. */
  #page(piece: RoutedRows, pageIndex: number): RowArray {
    const existing = this.#pages[pageIndex] ?? null;
    const width = piece.numLayers * piece.topK;
    if (existing !== null && existing.length === this.#rowsPerPage * width) return existing;
    while (this.#pages.length < pageIndex) this.#pages.push(null);
    const shape = { ...piece, entriesPerRow: width, bytesPerRow: 0 };
    const page = allocateRows(shape, this.#rowsPerPage);
    if (existing !== null) page.set(existing);
    this.#pages[pageIndex] = page;
    return page;
  }
}

/** The pieces of one request's outputs, joined; `null` if none of them had rows. */
export function joinRoutedRows(pieces: Iterable<RoutedRows | null>): RoutedRows | null {
  const joiner = new RowJoiner();
  for (const piece of pieces) if (piece !== null) joiner.add(piece);
  return joiner.rows;
}
