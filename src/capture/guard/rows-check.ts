/** Whether what `take` returned can be read as rows of the request: their form, not what they say. */

import type { RowDtype } from '../../contract/config.ts';
import type { PositionRange, RoutedRows } from '../../contract/routed-rows.ts';
import type { RowShape } from '../row-shape.ts';
import { shown } from './hook-call.ts';

const CHUNK_TYPES = { uint8: Uint8Array, uint16: Uint16Array, int32: Int32Array } as const satisfies Record<
  RowDtype,
  unknown
>;

export type DueRows = Readonly<{
  shape: Pick<RowShape, 'numLayers' | 'layers' | 'topK'>;
  /** Rows up to here were handed out before; before that, where the request wants them from. */
  from: number;
  /** Of the rows handed out before; `null`: these are the first. */
  dtype: RowDtype | null;
  /** The request has no rows from here on. */
  to: number;
  /** The request ends. */
  isLast: boolean;
}>;

/** What is wrong with the rows, or `null`. O(chunks + missing ranges). */
export function problemOfRows(rows: RoutedRows | null, due: DueRows): string | null {
  const { from, to, isLast } = due;
  if (rows !== null) {
    if (typeof rows !== 'object') return `it returned ${typeof rows}; return rows or null`;
    const problem = problemOfHeader(rows, due) ?? problemOfMissing(rows) ?? problemOfChunks(rows);
    if (problem !== null) return problem;
  }
  const end = rows === null ? from : rows.start + rows.count;
  if (isLast && end < to) return `the request ends, and its rows [${end}, ${to}) are neither there nor missing`;
  return null;
}

function problemOfHeader(rows: RoutedRows, { shape, from, dtype, to }: DueRows): string | null {
  const { start, count, rowsPerChunk, chunkOrigin = 0 } = rows;
  for (const name of ['numLayers', 'topK'] as const) {
    if (rows[name] !== shape[name]) return `${name} of its rows is ${shown(rows[name])}; the model’s is ${shape[name]}`;
  }
  if (rows.layers !== undefined && String(rows.layers) !== String(shape.layers)) {
    return `layers of its rows are ${rows.layers}; those of the model with a router are ${shape.layers}`;
  }
  const dtypes: readonly unknown[] = dtype === null ? Object.keys(CHUNK_TYPES) : [dtype];
  if (!dtypes.includes(rows.dtype)) {
    return `dtype of its rows is ${rows.dtype}; give ${dtypes.join(', ')}`;
  }
  if (!isWhole(start) || !isWhole(count)) return `its rows begin at ${shown(start)} and are ${shown(count)}`;
  if (!isWhole(rowsPerChunk) || rowsPerChunk < 1) return `rowsPerChunk of its rows is ${shown(rowsPerChunk)}`;
  if (!isWhole(chunkOrigin) || (count > 0 && chunkOrigin > start)) {
    return `chunkOrigin of its rows is ${shown(chunkOrigin)}; the rows begin at ${start}`;
  }
  const isFirst = dtype === null;
  const isInPlace = isFirst ? start === from : start >= from;
  if (isInPlace && start + count <= Math.max(from, to)) return null;
  const due = isFirst ? `due are [${from}, ${to})` : `due are rows of [${from}, ${to})`;
  return `it returned the rows [${start}, ${start + count}); ${due}`;
}

function problemOfMissing({ start, count, missing }: RoutedRows): string | null {
  if (!Array.isArray(missing)) return 'its rows have no list of missing ranges; leave it empty where none is missing';
  let at = start;
  for (const range of missing as readonly PositionRange[]) {
    const isRange = Array.isArray(range) && isWhole(range[0]) && isWhole(range[1]);
    if (!isRange || range[0] < at || range[1] <= range[0] || range[1] > start + count) {
      return `missing range [${isRange ? range : shown(range)}) is not in order inside [${start}, ${start + count})`;
    }
    at = range[1];
  }
  return null;
}

/** Each position that is not missing must lie in a chunk. */
function problemOfChunks(rows: RoutedRows): string | null {
  const { start, count, chunks, missing, dtype, rowsPerChunk, chunkOrigin = 0 } = rows;
  if (!Array.isArray(chunks)) return 'its rows have no list of chunks';
  const width = rows.numLayers * rows.topK;
  const end = start + count;
  let at = start;
  for (const [gapFrom, gapTo] of [...missing, [end, end] as const]) {
    while (at < gapFrom) {
      const i = Math.floor((at - chunkOrigin) / rowsPerChunk);
      const chunkFrom = chunkOrigin + i * rowsPerChunk;
      const to = Math.min(gapFrom, chunkFrom + rowsPerChunk);
      const chunk: unknown = chunks[i];
      if (!(chunk instanceof CHUNK_TYPES[dtype])) {
        return `its rows [${at}, ${to}) are neither in a ${dtype} chunk nor missing`;
      }
      const needed = (to - chunkFrom) * width;
      if (chunk.length < needed) return `chunk ${i} of its rows has ${chunk.length} entries, needed are ${needed}`;
      at = to;
    }
    at = Math.max(at, gapTo);
  }
  return null;
}

function isWhole(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
