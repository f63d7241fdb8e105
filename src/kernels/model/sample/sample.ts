/** `sample.wgsl` in TypeScript: verifies drafts, samples, proposes the next drafts. */

import type { KernelShape } from '../kernel-shape.ts';
import { SampledLayout } from './sampled-layout.ts';
import { FROM_DEVICE, HEADER_WORDS, Header, REQUEST_WORDS, RequestField } from '../step-input.ts';
import { draftToken, hiddenX, hiddenY, keyBase, keyX, keyY, nextToken, termX, termY } from '../mix/mix.ts';

/**
 * @param stepInput see step-input.ts
 * @param hidden `[maxNumBatchedTokens, 4]`
 * @param sampled `[maxNumSeqs, stride]` see sampled-layout.ts
 * @param lastTokens `[maxNumSeqs, 1 + S]` last token and drafts of each batch slot; written for requests that sample
 */
export function sample(
  shape: KernelShape,
  stepInput: Uint32Array,
  hidden: Uint32Array,
  sampled: Uint32Array,
  lastTokens: Uint32Array,
): void {
  const { vocabSize, numSpeculativeTokens, wrongDraftsBelow } = shape;
  const layout = new SampledLayout(numSpeculativeTokens);
  const epoch = stepInput[Header.epoch]!;
  const requests = stepInput[Header.requests]!;
  for (let ordinal = 0; ordinal < stepInput[Header.numRequests]!; ordinal++) {
    const request = requests + REQUEST_WORDS * ordinal;
    if (stepInput[request + RequestField.samples] === 0) {
      sampled[ordinal * layout.stride] = 0;
      continue;
    }
    const tail = stepInput[request + RequestField.tokenCount]! - 1 - stepInput[request + RequestField.numDrafts]!;
    const numDrafts = stepInput[request + RequestField.numDrafts]!;
    const firstRow = stepInput[request + RequestField.rowStart]! + tail;
    const last = stepInput[request + RequestField.batchSlot]! * (1 + numSpeculativeTokens);

    let accepted = 0;
    let token = 0;
    for (;;) {
      const row = firstRow + accepted;
      token = nextToken(hidden[4 * row]!, hidden[4 * row + 1]!, vocabSize);
      sampled[layout.tokensAt(ordinal) + accepted] = token;
      if (accepted === numDrafts) break;
      let draft = stepInput[HEADER_WORDS + row + 1]!;
      if (draft === FROM_DEVICE) draft = lastTokens[last + accepted + 1]!;
      if (draft !== token) break;
      accepted += 1;
    }
    sampled[ordinal * layout.stride] = accepted + 1;
    lastTokens[last] = token;

    const position = stepInput[request + RequestField.tokenStart]! + tail + accepted + 1;
    let sumX = hidden[4 * (firstRow + accepted) + 2]!;
    let sumY = hidden[4 * (firstRow + accepted) + 3]!;
    for (let ahead = 0; ahead < numSpeculativeTokens; ahead++) {
      const base = keyBase(position + ahead, epoch);
      sumX = (sumX + termX(keyX(token, base), position + ahead)) | 0;
      sumY = (sumY + termY(keyY(token, base), position + ahead)) | 0;
      const x = hiddenX(sumX);
      const y = hiddenY(sumY, x);
      token = nextToken(x, y, vocabSize);
      const draft = draftToken(x, y, token, vocabSize, wrongDraftsBelow);
      sampled[layout.draftsAt(ordinal) + ahead] = draft;
      lastTokens[last + 1 + ahead] = draft;
    }
  }
}
