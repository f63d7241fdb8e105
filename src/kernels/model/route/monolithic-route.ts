/**
 * A monolithic router in TypeScript: gate, selection and the chosen experts' work in one, as `monolithic.wgsl` has
 * it.
 */

import { Header } from '../step-input.ts';
import { gateSeed, scramble } from '../mix/mix.ts';
import type { Router } from './route.ts';
import { writeReplayedId } from '../routing-replay/routing-replay.ts';

/** What a chosen expert adds to the token's sum at its layer. */
export function expertWork(seed: number, place: number): number {
  return scramble(seed ^ Math.imul(place + 1, 0x9e3779b1));
}

/**
 * @param maxTokens rows that `routingReplayOut` has per layer
 * @param stepInput see step-input.ts
 * @param hidden `[maxNumBatchedTokens, 4]`
 * @param expertOutput `[maxNumBatchedTokens, L]` sums of the chosen experts' work; rows of the step are written
 * @param routingReplayOut `[L, maxTokens, K]` int16 ids; rows of the step are written; `null`: they are not wanted
 */
export function monolithicRoute(
  router: Router,
  maxTokens: number,
  stepInput: Uint32Array,
  hidden: Uint32Array,
  expertOutput: Uint32Array,
  routingReplayOut: Uint32Array | null,
): void {
  const { numLayers, numExperts, topK, firstLayer = 0 } = router.model;
  const ids = new Uint32Array(numLayers * topK);
  for (let row = 0; row < stepInput[Header.numTokens]!; row++) {
    const [x, y] = [hidden[4 * row]!, hidden[4 * row + 1]!];
    router.route(x, y, ids, 0);
    for (let layer = 0; layer < numLayers; layer++) {
      const seed = gateSeed(x, y, firstLayer + layer);
      let sum = 0;
      for (let k = 0; k < topK; k++) {
        const expert = ids[layer * topK + k]!;
        sum = (sum + expertWork(seed, layer * numExperts + expert)) | 0;
        if (routingReplayOut !== null) writeReplayedId(routingReplayOut, (layer * maxTokens + row) * topK + k, expert);
      }
      expertOutput[row * numLayers + layer] = sum;
    }
  }
}
