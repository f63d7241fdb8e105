/**
 * Reading `RoutedRows`. Everything here may be proportional to a request's length, so none of it runs in the
 * scheduler's step (L6).
 */

import type { PositionRange, RoutedRows } from '../contract/routed-rows.ts';
import type { RowArray } from './row-shape.ts';
import { allocateRows } from './row-shape.ts';

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
  const shape = { ...rows, entriesPerRow: width, bytesPerRow: 0 };
  const all = allocateRows(shape, rows.count);
  for (const { position, count, chunk, row } of pieces(rows, rows.start, rows.start + rows.count)) {
    if (chunk) all.set(chunk.subarray(row * width, (row + count) * width), (position - rows.start) * width);
  }
  for (const [from, to] of rows.missing) all.fill(fill, (from - rows.start) * width, (to - rows.start) * width);
  return all;
}

/** What of `[from, to)` is there. */
export function presentRanges(rows: RoutedRows, from: number, to: number): PositionRange[] {
  const end = Math.min(to, rows.start + rows.count);
  const present: PositionRange[] = [];
  let at = Math.max(from, rows.start);
  for (const [gapFrom, gapTo] of [...rows.missing, [end, end] as const]) {
    if (at < Math.min(gapFrom, end)) present.push([at, Math.min(gapFrom, end)]);
    at = Math.max(at, gapTo);
  }
  return present;
}

/** The rows of `count` positions lie in one chunk, from its row `row` on. */
type Piece = Readonly<{ position: number; count: number; chunk: RowArray | null; row: number }>;

/** The chunks that hold the rows `[from, to)`, and where in them. */
export function* pieces(rows: RoutedRows, from: number, to: number): Generator<Piece> {
  const origin = rows.chunkOrigin ?? 0;
  for (let position = from; position < to;) {
    const index = Math.floor((position - origin) / rows.rowsPerChunk);
    const chunkStart = origin + index * rows.rowsPerChunk;
    const count = Math.min(to, chunkStart + rows.rowsPerChunk) - position;
    yield { position, count, chunk: rows.chunks[index] ?? null, row: position - chunkStart };
    position += count;
  }
}
