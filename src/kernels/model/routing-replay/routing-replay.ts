/**
 * FlashInfer's `routing_replay_out`, `[L, maxTokens, K]` int16, two ids in a word; and `*-routing-replay.wgsl` in
 * TypeScript.
 */

import type { ModelConfig } from '../../../contract/config.ts';
import { rowDtype } from '../kernel-shape.ts';
import { Header } from '../step-input.ts';

type RowModel = Pick<ModelConfig, 'numLayers' | 'numExperts' | 'topK'>;

/** Words of the buffer. */
export function routingReplayWords({ numLayers, topK }: Omit<RowModel, 'numExperts'>, maxTokens: number): number {
  return Math.ceil((numLayers * maxTokens * topK) / 2);
}

export function writeReplayedId(replay: Uint32Array, place: number, expert: number): void {
  const shift = 16 * (place & 1);
  replay[place >> 1] = (replay[place >> 1]! & ~(0xffff << shift)) | (expert << shift);
}

function replayedId(replay: Uint32Array, place: number): number {
  return (replay[place >> 1]! >>> (16 * (place & 1))) & 0xffff;
}

/**
 * @param replay `[L, maxTokens, K]` int16
 * @param rows `[1 + maxNumBatchedTokens]` how many rows, then their numbers
 * @param packed see `pack`
 */
export function packRoutingReplay(
  { numLayers, numExperts, topK }: RowModel,
  maxTokens: number,
  replay: Uint32Array,
  rows: Uint32Array,
  packed: Uint32Array,
): void {
  const rowLength = numLayers * topK;
  const idsPerWord = rowDtype(numExperts) === 'uint8' ? 4 : 2;
  const numIds = rows[0]! * rowLength;
  packed.fill(0, 0, Math.ceil(numIds / idsPerWord));
  let at = 0;
  for (let ordinal = 0; ordinal < rows[0]!; ordinal++) {
    for (let layer = 0; layer < numLayers; layer++) {
      const first = (layer * maxTokens + rows[1 + ordinal]!) * topK;
      for (let k = 0; k < topK; k++, at++) {
        packed[Math.floor(at / idsPerWord)]! |=
          replayedId(replay, first + k) << ((32 / idsPerWord) * (at % idsPerWord));
      }
    }
  }
}

/**
 * @param replay `[L, maxTokens, K]` int16
 * @param stepInput see step-input.ts
 * @param routedExperts `[maxNumBatchedTokens, L, K]` ids; rows of the step are written
 */
export function expandRoutingReplay(
  { numLayers, topK }: Omit<RowModel, 'numExperts'>,
  maxTokens: number,
  replay: Uint32Array,
  stepInput: Uint32Array,
  routedExperts: Uint32Array,
): void {
  for (let row = 0; row < stepInput[Header.numTokens]!; row++) {
    for (let layer = 0; layer < numLayers; layer++) {
      for (let k = 0; k < topK; k++) {
        const place = (layer * maxTokens + row) * topK + k;
        routedExperts[(row * numLayers + layer) * topK + k] = replayedId(replay, place);
      }
    }
  }
}
