/** Digests that tell one thing from another in a storm, where nobody forges: FNV-1a, a word at a time. */

import { pieces } from '../../capture/routed-rows.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';

const OFFSET = 0x811c9dc5;
const PRIME = 0x01000193;

export function tokenDigest(tokens: Uint32Array, numTokens: number): string {
  return String(fold(OFFSET, tokens.subarray(0, numTokens)));
}

/** Of rows that are all there. */
export function rowsDigest(rows: RoutedRows): string {
  const width = rows.numLayers * rows.topK;
  let hash = fold(OFFSET, [rows.start, rows.count]);
  for (const { chunk, row, count } of pieces(rows, rows.start, rows.start + rows.count)) {
    hash = fold(hash, chunk!.subarray(row * width, (row + count) * width));
  }
  return String(hash);
}

function fold(hash: number, words: Iterable<number>): number {
  let folded = hash;
  for (const word of words) folded = Math.imul(folded ^ word, PRIME);
  return folded;
}
