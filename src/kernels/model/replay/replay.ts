/**
 * `replay-route.wgsl` and `replay-sample.wgsl` in TypeScript: rows and tokens of a recording instead of a
 * router's.
 */

import type { ModelConfig } from '../../../contract/config.ts';
import type { KernelShape } from '../kernel-shape.ts';
import { Bucket, bucketOf, rowOffset, unknownExpert } from './replay-table.ts';
import { SampledLayout } from '../sample/sampled-layout.ts';
import { Header, REQUEST_WORDS, RequestField } from '../step-input.ts';

/**
 * @param stepInput see step-input.ts
 * @param hidden `[maxNumBatchedTokens, 4]`
 * @param table see replay-table.ts
 * @param routedExperts `[maxNumBatchedTokens, L, K]` ids; rows of the step are written
 */
export function replayRoute(
  model: ModelConfig,
  stepInput: Uint32Array,
  hidden: Uint32Array,
  table: Uint32Array,
  routedExperts: Uint32Array,
): void {
  const rowLength = model.numLayers * model.topK;
  for (let row = 0; row < stepInput[Header.numTokens]!; row++) {
    const recorded = table[bucketOf(table, hidden[4 * row]!, hidden[4 * row + 1]!) + Bucket.row]!;
    const to = row * rowLength;
    if (recorded === 0) {
      routedExperts.fill(unknownExpert(model), to, to + rowLength);
      continue;
    }
    const from = rowOffset(table, recorded - 1, rowLength);
    routedExperts.set(table.subarray(from, from + rowLength), to);
  }
}

/**
 * Without drafts. Where no token was recorded it samples token 0.
 *
 * @param stepInput see step-input.ts
 * @param hidden `[maxNumBatchedTokens, 4]`
 * @param sampled `[maxNumSeqs, stride]` see sampled-layout.ts
 * @param lastTokens `[maxNumSeqs, 1]` last token of each batch slot; written for requests that sample
 * @param table see replay-table.ts
 */
export function replaySample(
  shape: KernelShape,
  stepInput: Uint32Array,
  hidden: Uint32Array,
  sampled: Uint32Array,
  lastTokens: Uint32Array,
  table: Uint32Array,
): void {
  const layout = new SampledLayout(shape.numSpeculativeTokens);
  for (let ordinal = 0; ordinal < stepInput[Header.numRequests]!; ordinal++) {
    const request = stepInput[Header.requests]! + REQUEST_WORDS * ordinal;
    const samples = stepInput[request + RequestField.samples]!;
    sampled[ordinal * layout.stride] = samples;
    if (samples === 0) continue;
    const row = stepInput[request + RequestField.rowStart]! + stepInput[request + RequestField.tokenCount]! - 1;
    const recorded = table[bucketOf(table, hidden[4 * row]!, hidden[4 * row + 1]!) + Bucket.nextToken]!;
    const token = recorded === 0 ? 0 : recorded - 1;
    sampled[layout.tokensAt(ordinal)] = token;
    lastTokens[stepInput[request + RequestField.batchSlot]!] = token;
  }
}
