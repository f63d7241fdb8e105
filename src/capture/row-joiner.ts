/**
 * Joins what designs that emit as they go attach to a request's outputs. Runs with the frontend, outside the
 * scheduler's step.
 */

import { RoutedExpertsError } from '../contract/errors.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import { presentPieces } from './routed-rows.ts';
import { RowPages } from './row-pages.ts';

/** Rows of a page where the first piece brings no pages that can be filled up. */
const ROWS_PER_PAGE = 64;

/**
 * Pieces come in order of position, each behind the one before it:
 *
 *     pieces   ├ prompt rows, in pages ┼ 1 row ┼ 2 rows ┼ …
 *     joined   [ page 0 ][ page 1 ][ page 2 ……………… ]     the first piece's pages are kept, and later rows fill them up
 *
 * A design that hands out everything at the end makes one piece, which passes through untouched. What lies between two
 * pieces is missing (L4).
 */
export class RowJoiner {
  #first: RoutedRows | null = null;
  /** From the second piece on. */
  #pages: RowPages | null = null;
  #end = 0;

  /**
   * Takes over a piece: O(1) for the first, O(rows of the piece) for those behind it, and once O(pages) of the first.
   * Throws INVARIANT if it overlaps those before it (L3).
   */
  add(piece: RoutedRows): void {
    if (this.#first === null) this.#first = piece;
    else {
      if (piece.start < this.#end) {
        const what = `rows from ${piece.start} on were handed out after rows up to ${this.#end}`;
        throw RoutedExpertsError.of('INVARIANT', what);
      }
      this.#pages ??= pagesOf(this.#first);
      writeAll(this.#pages, piece);
    }
    this.#end = piece.start + piece.count;
  }

  /** All rows so far, or `null` if none were added. Nothing is copied: add no piece after the caller took it. */
  get rows(): RoutedRows | null {
    return this.#pages?.take(this.#first!.start, this.#end) ?? this.#first;
  }
}

function pagesOf(first: RoutedRows): RowPages {
  const isPaged = first.chunkOrigin === undefined;
  const pages = new RowPages(first, isPaged ? first.rowsPerChunk : ROWS_PER_PAGE);
  if (isPaged) pages.adopt(first);
  else writeAll(pages, first);
  return pages;
}

function writeAll(pages: RowPages, piece: RoutedRows): void {
  for (const { position, count, rows } of presentPieces(piece)) pages.write(position, count, rows);
}
