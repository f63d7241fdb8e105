/** The rows of one request on their way to the caller. */

import type { RowDtype } from './config.ts';

/** `[from, to)` in token positions. */
export type PositionRange = readonly [from: number, to: number];

/**
 * Rows of the positions `[start, start + count)`. A list of chunks, not one array, so that nothing is concatenated on
 * the scheduler's time (L6):
 *
 *     position      0 ───────── rowsPerChunk ───────── 2·rowsPerChunk ──
 *     chunks        [ chunks[0]              ][ chunks[1]            ][ …
 *
 * Row p is `chunks[⌊p / rowsPerChunk⌋]`, entries `[(p mod rowsPerChunk) · L · K, … + L · K)`. A chunk may be `null` if
 * all of its wanted rows are before `start` or missing. Chunks may be shared with other requests: read only. Rows
 * inside a `missing` range must not be read: their content is undefined (L4).
 *
 * Rows of all layers (`--rows-layers all`) have the same chunks, in which L counts the layers with a router:
 *
 *     chunk, layers = [1, 2]       │ K ids │ K ids │
 *     row, numLayers = 4   │ zeros │ K ids │ K ids │ zeros │      a column for each layer; 0 and 3 are dense
 *
 * Whoever reads rows through `presentPieces`, `rowAt` or `toArray` gets them as the second line shows.
 *
 * Designs that emit as they go hand out pieces. A piece has its own `chunkOrigin`, from which its positions are
 * counted; `RowJoiner` makes one `RoutedRows` of them.
 */
export type RoutedRows = Readonly<{
  start: number;
  count: number;
  /** L: ids of so many layers are in a row. */
  numLayers: number;
  /**
   * Which of the model's layers the ids in `chunks` are of, ascending. As many as `numLayers`: one for each column of a
   * row. Fewer: a row has a column for every layer of the model, and these are the ones with a router. Absent: not
   * known, as of rows that were read from a form that does not say it.
   */
  layers?: readonly number[];
  topK: number;
  dtype: RowDtype;
  rowsPerChunk: number;
  /** Position of the first row of `chunks[0]`; absent = 0. */
  chunkOrigin?: number;
  chunks: readonly (Uint8Array | Uint16Array | Int32Array | null)[];
  /** Ascending, disjoint, inside `[start, start + count)`. */
  missing: readonly PositionRange[];
}>;
