/** The rows of blocks that come back, as a request wants them. */

import { routedRows } from '../../capture/routed-rows.ts';
import type { RowArray, RowShape } from '../../capture/row-shape.ts';
import type { KvLoad } from '../../contract/kv-connector.ts';
import type { PositionRange, RoutedRows } from '../../contract/routed-rows.ts';
import type { TierBlock } from './tier-block.ts';

type Loaded = Readonly<{
  load: KvLoad;
  /** Those of the load, in order. */
  blocks: readonly TierBlock[];
  /** From where on rows are wanted; `null`: none are. */
  rowsStart: number | null;
}>;

/** The rows from `rowsStart` to the end of the load, without a copy: what a block does not have is missing. */
export function loadedRows(
  { load: { from, to }, blocks, rowsStart }: Loaded,
  { blockSize, rowShape }: Readonly<{ blockSize: number; rowShape: RowShape }>,
): RoutedRows | null {
  if (rowsStart === null || rowsStart >= to) return null;
  const chunks: (RowArray | null)[] = [];
  const missing: PositionRange[] = [];
  for (const [i, { rows }] of blocks.entries()) {
    const first = from + i * blockSize;
    chunks.push(rows?.chunk ?? null);
    const wantedFrom = Math.max(first, rowsStart);
    const missingTo = first + (rows?.offset ?? blockSize);
    if (wantedFrom < missingTo) missing.push([wantedFrom, missingTo]);
  }
  const rows = routedRows(rowShape, Math.max(rowsStart, from), to, { rowsPerChunk: blockSize, chunks });
  return { ...rows, chunkOrigin: from, missing };
}
