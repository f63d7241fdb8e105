/**
 * `attend-write.wgsl` in TypeScript: keys of the step's tokens to their KV slots, and the step's changes to the
 * block table.
 */

import type { KernelShape } from '../kernel-shape.ts';
import { FROM_DEVICE, HEADER_WORDS, Header, REQUEST_WORDS, RequestField } from '../step-input.ts';
import { keyBase, keyX, keyY } from '../mix/mix.ts';

/**
 * @param stepInput see step-input.ts
 * @param slotMapping `[maxNumBatchedTokens]` KV slot of each row
 * @param lastTokens `[maxNumSeqs, 1 + S]` last sampled token and drafts of each batch slot
 * @param kvKeys `[numSlots, 2]` written at the step's slots
 * @param blockTable `[maxNumSeqs, maxBlocksPerSeq]` written where the step says
 */
export function attendWrite(
  shape: KernelShape,
  stepInput: Uint32Array,
  slotMapping: Uint32Array,
  lastTokens: Uint32Array,
  kvKeys: Uint32Array,
  blockTable: Uint32Array,
): void {
  const numTokens = stepInput[Header.numTokens]!;
  const epoch = stepInput[Header.epoch]!;
  const tokenRequests = stepInput[Header.tokenRequests]!;
  const requests = stepInput[Header.requests]!;
  for (let row = 0; row < numTokens; row++) {
    const request = requests + REQUEST_WORDS * stepInput[tokenRequests + row]!;
    const offset = row - stepInput[request + RequestField.rowStart]!;
    let token = stepInput[HEADER_WORDS + row]!;
    if (token === FROM_DEVICE) {
      const tail = stepInput[request + RequestField.tokenCount]! - stepInput[request + RequestField.numDrafts]! - 1;
      const batchSlot = stepInput[request + RequestField.batchSlot]!;
      token = lastTokens[batchSlot * (1 + shape.numSpeculativeTokens) + offset - tail]!;
    }
    const base = keyBase(stepInput[request + RequestField.tokenStart]! + offset, epoch);
    const slot = slotMapping[row]!;
    kvKeys[2 * slot] = keyX(token, base);
    kvKeys[2 * slot + 1] = keyY(token, base);
  }
  const tableUpdates = stepInput[Header.tableUpdates]!;
  const numTableUpdates = stepInput[Header.numTableUpdates]!;
  for (let update = 0; update < numTableUpdates; update++) {
    blockTable[stepInput[tableUpdates + 2 * update]!] = stepInput[tableUpdates + 2 * update + 1]!;
  }
}
