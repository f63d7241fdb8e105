/** `fold.wgsl` in TypeScript: what a pipeline stage makes of the hidden states that it received. */

import { foldedX, foldedY } from '../mix/mix.ts';
import { Header } from '../step-input.ts';

/**
 * A stage computes hidden states from keys of its own. Where they are those that the stage before sent, they stay.
 * Where not, one of the two has read KV that is not the request's, and what is sent on tells.
 *
 * @param stepInput see step-input.ts
 * @param received `[maxNumBatchedTokens, 2]` hidden states as the stage before sent them
 * @param hidden `[maxNumBatchedTokens, 4]` of each token x and y are overwritten where they differ
 */
export function fold(stepInput: Uint32Array, received: Uint32Array, hidden: Uint32Array): void {
  const numTokens = stepInput[Header.numTokens]!;
  for (let row = 0; row < numTokens; row++) {
    const x = hidden[4 * row]!;
    const y = hidden[4 * row + 1]!;
    if (x === received[2 * row] && y === received[2 * row + 1]) continue;
    hidden[4 * row] = foldedX(received[2 * row]!, x);
    hidden[4 * row + 1] = foldedY(received[2 * row + 1]!, y);
  }
}
