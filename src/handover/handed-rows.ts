/** The rows that go with KV from one engine to another: how they travel, and which part of them there is. */

import { routedRows } from '../capture/routed-rows.ts';
import type { RowShape } from '../capture/row-shape.ts';
import { viewRows } from '../capture/row-shape.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';

/**
 * How the rows of a prompt get from the engine that prefills to the client of the one that decodes.
 *
 *     with-kv   over the same connection as the KV that they belong to
 *     carry     in the hand-over's parameters, through the proxy
 *     splice    in the first answer; the second declares them missing, and the proxy puts them in
 */
export const pdRowsWays = ['with-kv', 'carry', 'splice'] as const;
export type PdRows = (typeof pdRowsWays)[number];

/** The rows `[start, end)`, or `null` if one of them is not there: a part must not pass for all (L4). */
export function rowsBetween(rows: RoutedRows | null, start: number, end: number): RoutedRows | null {
  if (rows === null || rows.start > start || rows.start + rows.count < end || start >= end) return null;
  if (rows.missing.some(([gapFrom, gapTo]) => gapTo > start && gapFrom < end)) return null;
  return { ...rows, start, count: end - start, missing: [] };
}

/** Rows `[start, end)` that lie in `bytes`, or that are all missing. `null`: the bytes are not so many rows. */
export function rowsOfBytes(
  shape: RowShape,
  { start, end, bytes }: Readonly<{ start: number; end: number; bytes: Uint8Array | 'missing' }>,
): RoutedRows | null {
  const count = end - start;
  if (bytes !== 'missing' && bytes.length !== count * shape.bytesPerRow) return null;
  return routedRows(shape, start, end, bytes === 'missing' ? {} : { chunks: [viewRows(shape, bytes, count)] });
}
