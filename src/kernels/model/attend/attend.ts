/** `attend.wgsl` in TypeScript: the digest that stands in for attention. */

import type { KernelShape } from '../kernel-shape.ts';
import { Header, REQUEST_WORDS, RequestField } from '../step-input.ts';
import { hiddenX, hiddenY, termX, termY } from '../mix/mix.ts';

/**
 * @param stepInput see step-input.ts
 * @param kvKeys `[numSlots, 2]`
 * @param blockTable `[maxNumSeqs, maxBlocksPerSeq]`
 * @param hidden `[maxNumBatchedTokens, 4]` hidden state x, y and the sums x, y behind it; rows of the step are written
 */
export function attend(
  shape: KernelShape,
  stepInput: Uint32Array,
  kvKeys: Uint32Array,
  blockTable: Uint32Array,
  hidden: Uint32Array,
): void {
  const { blockSize, maxBlocksPerSeq } = shape;
  const numRequests = stepInput[Header.numRequests]!;
  const requests = stepInput[Header.requests]!;
  for (let ordinal = 0; ordinal < numRequests; ordinal++) {
    const request = requests + REQUEST_WORDS * ordinal;
    const table = stepInput[request + RequestField.batchSlot]! * maxBlocksPerSeq;
    const tokenStart = stepInput[request + RequestField.tokenStart]!;
    const rowStart = stepInput[request + RequestField.rowStart]!;
    const end = tokenStart + stepInput[request + RequestField.tokenCount]!;
    let sumX = 0;
    let sumY = 0;
    for (let position = 0; position < end; position++) {
      const slot = blockTable[table + Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
      sumX = (sumX + termX(kvKeys[2 * slot]!, position)) | 0;
      sumY = (sumY + termY(kvKeys[2 * slot + 1]!, position)) | 0;
      if (position < tokenStart) continue;
      const at = 4 * (rowStart + position - tokenStart);
      const x = hiddenX(sumX);
      hidden[at] = x;
      hidden[at + 1] = hiddenY(sumY, x);
      hidden[at + 2] = sumX;
      hidden[at + 3] = sumY;
    }
  }
}
