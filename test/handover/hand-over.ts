/** What tests of both sides share: an engine of blocks of four tokens, and rows that tell their positions. */

import { rowShape } from '../../src/capture/row-shape.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import type { HandoverOptions } from '../../src/handover/kv-message.ts';

export const BLOCK_SIZE = 4;
export const LEASE_MS = 1000;
export const LOAD_MS = 500;
export const PROMPT: Uint32Array = Uint32Array.from({ length: 10 }, (_, i) => i + 1);

const SHAPE = rowShape({ name: 't', numLayers: 2, numExperts: 8, topK: 2, vocabSize: 29, gateWidth: 8 });

export const options: HandoverOptions = {
  engineId: 'e',
  blockSize: BLOCK_SIZE,
  rowShape: SHAPE,
  shape: 'a shape',
  rows: 'with-kv',
  leaseMs: LEASE_MS,
  loadMs: LOAD_MS,
  onLoadFailure: 'recompute',
  tokenDigest: (tokens, numTokens) => tokens.subarray(0, numTokens).join(),
};

/** Row p holds p. */
export function rowsOf(start: number, end: number): RoutedRows {
  const { numLayers, topK, dtype, entriesPerRow } = SHAPE;
  const count = end - start;
  const chunk = Uint8Array.from({ length: count * entriesPerRow }, (_, i) => start + Math.floor(i / entriesPerRow));
  return {
    start,
    count,
    numLayers,
    topK,
    dtype,
    rowsPerChunk: count,
    chunkOrigin: start,
    chunks: [chunk],
    missing: [],
  };
}
