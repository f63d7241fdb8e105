/**
 * Making and reading `RoutedRows`. Reading may be proportional to a request's length, so it does not run in the
 * scheduler's step (L6).
 */

import type { PositionRange, RoutedRows } from '../contract/routed-rows.ts';
import { rangesBetween } from './position-ranges.ts';
import type { RowArray, RowForm } from './row-shape.ts';
import { allocateRows } from './row-shape.ts';

/** Where the rows lie. */
export type RowParts = Partial<Pick<RoutedRows, 'rowsPerChunk' | 'chunks' | 'missing'>>;

/**
 * The rows `[start, end)`. With `rowsPerChunk` the chunks are pages, counted from position 0. Without it there is one
 * chunk at most, and its first row is that of `start`. Without chunks all rows are missing.
 */
export function routedRows(form: RowForm, start: number, end: number, parts: RowParts = {}): RoutedRows {
  const { numLayers, topK, dtype } = form;
  const {
    rowsPerChunk,
    chunks = [],
    missing = parts.chunks === undefined && start < end ? [[start, end]] : [],
  } = parts;
  const count = Math.max(0, end - start);
  const header = { start, count, numLayers, topK, dtype, chunks, missing };
  if (rowsPerChunk !== undefined) return { ...header, rowsPerChunk };
  return { ...header, rowsPerChunk: Math.max(1, count), chunkOrigin: start };
}

/** Rows that exist. */
export function countPresent(rows: RoutedRows): number {
  return rows.count - countPositions(rows.missing);
}

export function countPositions(ranges: readonly PositionRange[]): number {
  return ranges.reduce((sum, [from, to]) => sum + (to - from), 0);
}

/** The `L·K` ids of the row at `position`, or `null` if it is missing. A view: valid as long as `rows`. */
export function rowAt(rows: RoutedRows, position: number): RowArray | null {
  if (position < rows.start || position >= rows.start + rows.count) return null;
  if (rows.missing.some(([from, to]) => position >= from && position < to)) return null;
  const place = position - (rows.chunkOrigin ?? 0);
  const chunk = rows.chunks[Math.floor(place / rows.rowsPerChunk)];
  if (!chunk) return null;
  const width = rows.numLayers * rows.topK;
  const offset = (place % rows.rowsPerChunk) * width;
  return chunk.subarray(offset, offset + width);
}

/**
 * All rows in one array `[count, L, K]`. Missing rows are filled with `fill`: a value that no expert has, so that it
 * cannot be taken for a routing (L4); the caller reports `rows.missing` beside it.
 */
export function toArray(rows: RoutedRows, fill: number): RowArray {
  const width = rows.numLayers * rows.topK;
  const all = allocateRows(rows, rows.count);
  if (rows.missing.length > 0) all.fill(fill);
  for (const piece of presentPieces(rows)) all.set(piece.rows, (piece.position - rows.start) * width);
  return all;
}

/** The rows of `count` positions, which lie in one chunk: a view. */
type Piece = Readonly<{ position: number; count: number; rows: RowArray }>;

/** Those of the rows `[from, to)` that are not missing, in order. */
export function* presentPieces(rows: RoutedRows, from: number = 0, to: number = Infinity): Generator<Piece> {
  const { start, count, rowsPerChunk, chunkOrigin = 0, chunks, missing } = rows;
  const width = rows.numLayers * rows.topK;
  for (const [first, end] of rangesBetween(missing, Math.max(from, start), Math.min(to, start + count))) {
    for (let position = first; position < end;) {
      const index = Math.floor((position - chunkOrigin) / rowsPerChunk);
      const row = position - chunkOrigin - index * rowsPerChunk;
      const numRows = Math.min(end - position, rowsPerChunk - row);
      const chunk = chunks[index];
      if (chunk) yield { position, count: numRows, rows: chunk.subarray(row * width, (row + numRows) * width) };
      position += numRows;
    }
  }
}
