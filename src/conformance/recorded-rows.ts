/** Rows as the recordings define them: a function of the token prefix. */

import type { EngineConfig, ModelConfig } from '../contract/config.ts';
import type { RoutedExpertDeltas } from '../contract/model-runner-output.ts';
import { allocateRows, rowShape } from '../capture/row-shape.ts';
import { slottedDeltas } from '../capture/slot-store/slotted-deltas.ts';
import type { RowModel } from './recorded-schedule.ts';

/** What a worker computes for one request of a step. */
export type RecordedSpan = Readonly<{
  index: number;
  /** Position of the first computed token, and how many are computed. */
  tokenStart: number;
  numTokens: number;
  /** Drafts among them, always the last. */
  numDrafts: number;
  /** At least `tokenStart + numTokens` tokens; drafts that were rejected are 0. */
  tokenIds: Uint32Array;
  /** The block table when the step was scheduled. */
  blockIds: Uint32Array;
}>;

export const FIRST_HASH = 2166136261;
/** One step of FNV-1a. The row at position p takes its ids from the hash of the tokens `[0, p]`. */
export const nextHash = (hash: number, token: number): number => Math.imul(hash ^ token, 16777619) >>> 0;

/** Expert id of layer `l`, place `k` of the row with hash `hash`. */
export const recordedExpert = (hash: number, l: number, k: number, experts: number): number =>
  (hash >>> ((5 * l + 3 * k) & 31)) % experts;

/** The model that a recording's row function stands for. */
export const modelOfRows = ({ layers, topK, experts }: RowModel): ModelConfig => ({
  name: 'recorded',
  numLayers: layers,
  numExperts: experts,
  topK,
  vocabSize: 2 ** 32,
  gateWidth: 1,
});

/** What the worker half of `slot-store` sends: all rows of the step in the worker's order, and their KV slots. */
export const recordedSlotRows = (
  spans: readonly RecordedSpan[],
  rowModel: RowModel,
  { blockSize }: EngineConfig,
): RoutedExpertDeltas => {
  const { layers, topK, experts } = rowModel;
  const numRows = spans.reduce((sum, { numTokens }) => sum + numTokens, 0);
  const rows = allocateRows(rowShape(modelOfRows(rowModel)), numRows);
  const slotMapping = new Uint32Array(numRows);
  let row = 0;
  let entry = 0;
  for (const { tokenStart, numTokens, tokenIds, blockIds } of spans) {
    let hash = FIRST_HASH;
    for (let p = 0; p < tokenStart + numTokens; p += 1) {
      hash = nextHash(hash, tokenIds[p]!);
      if (p < tokenStart) continue;
      slotMapping[row] = blockIds[Math.floor(p / blockSize)]! * blockSize + (p % blockSize);
      row += 1;
      for (let l = 0; l < layers; l += 1) {
        for (let k = 0; k < topK; k += 1, entry += 1) rows[entry] = recordedExpert(hash, l, k, experts);
      }
    }
  }
  const step = {
    numRequests: spans.length,
    numTokens: numRows,
    requestIndices: Uint32Array.from(spans, ({ index }) => index),
    tokenStarts: Uint32Array.from(spans, ({ tokenStart }) => tokenStart),
    tokenCounts: Uint32Array.from(spans, ({ numTokens }) => numTokens),
    slotMapping,
  };
  return slottedDeltas(step, new Uint8Array(rows.buffer));
};
