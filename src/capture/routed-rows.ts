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
  const { numLayers, layers, topK, dtype } = form;
  const {
    rowsPerChunk,
    chunks = [],
    missing = parts.chunks === undefined && start < end ? [[start, end]] : [],
  } = parts;
  const count = Math.max(0, end - start);
  const named = layers === undefined ? {} : { layers };
  const header = { start, count, numLayers, ...named, topK, dtype, chunks, missing };
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

/** Entries of a row in its chunk: those of dense layers are not there. */
export function chunkWidth({ numLayers, layers, topK }: Pick<RoutedRows, 'numLayers' | 'layers' | 'topK'>): number {
  return (layers?.length ?? numLayers) * topK;
}

/** Whether rows have columns of dense layers, which their chunks have not. */
export function hasDenseLayers({ numLayers, layers }: Pick<RoutedRows, 'numLayers' | 'layers'>): boolean {
  return layers !== undefined && layers.length < numLayers;
}

/**
 * The `L·K` ids of the row at `position`, or `null` if it is missing. A view: valid as long as `rows`. Of rows with
 * dense layers a copy.
 */
export function rowAt(rows: RoutedRows, position: number): RowArray | null {
  if (position < rows.start || position >= rows.start + rows.count) return null;
  if (rows.missing.some(([from, to]) => position >= from && position < to)) return null;
  const place = position - (rows.chunkOrigin ?? 0);
  const chunk = rows.chunks[Math.floor(place / rows.rowsPerChunk)];
  if (!chunk) return null;
  const width = chunkWidth(rows);
  const offset = (place % rows.rowsPerChunk) * width;
  const ids = chunk.subarray(offset, offset + width);
  return hasDenseLayers(rows) ? withDenseLayers(rows, ids, 1) : ids;
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

/** The rows of `count` positions, which lie in one chunk: a view, or with dense layers a copy. */
type Piece = Readonly<{ position: number; count: number; rows: RowArray }>;

/** Those of the rows `[from, to)` that are not missing, in order. */
export function* presentPieces(rows: RoutedRows, from: number = 0, to: number = Infinity): Generator<Piece> {
  const { start, count, rowsPerChunk, chunkOrigin = 0, chunks, missing } = rows;
  const width = chunkWidth(rows);
  const isWide = hasDenseLayers(rows);
  const mostRows = isWide ? Math.max(1, Math.floor(WIDE_ENTRIES / (rows.numLayers * rows.topK))) : Infinity;
  for (const [first, end] of rangesBetween(missing, Math.max(from, start), Math.min(to, start + count))) {
    for (let position = first; position < end;) {
      const index = Math.floor((position - chunkOrigin) / rowsPerChunk);
      const row = position - chunkOrigin - index * rowsPerChunk;
      const numRows = Math.min(end - position, rowsPerChunk - row, mostRows);
      const ids = chunks[index]?.subarray(row * width, (row + numRows) * width);
      if (ids) yield { position, count: numRows, rows: isWide ? withDenseLayers(rows, ids, numRows) : ids };
      position += numRows;
    }
  }
}

/** Entries of a piece that is copied: it is as long as a writer of rows may hold up its thread (L6). */
const WIDE_ENTRIES = 65_536;

/** A column for each of the model's layers; those of layers without a router stay zeros. */
function withDenseLayers(rows: RoutedRows, ids: RowArray, numRows: number): RowArray {
  const { numLayers, topK, layers = [] } = rows;
  const wide = allocateRows(rows, numRows);
  for (let row = 0, from = 0; row < numRows; row++) {
    for (const layer of layers) {
      const to = (row * numLayers + layer) * topK;
      for (let k = 0; k < topK; k++) wide[to + k] = ids[from++]!;
    }
  }
  return wide;
}
