/** The model's made-up log probabilities, as the wire wants them. */

import { SequenceLogprobs } from '../../kernels/model/logprobs.ts';
import type { LogprobSequence } from './frontend-request.ts';

/** `epoch`: of the engine whose weights compute every token; 0 = none. */
export function madeUpLogprobs(vocabSize: number, epoch: number): LogprobSequence {
  const sequence = new SequenceLogprobs(vocabSize, () => epoch);
  return {
    of: (token, numTop) => {
      const next = sequence.next()!;
      const top = next.top(numTop);
      return {
        tokenIds: [token, ...top.map((each) => each.token)],
        logprobs: [next.of(token), ...top.map((each) => each.logprob)],
        rank: next.rankOf(token) + 1,
      };
    },
    push: (token) => sequence.push(token),
  };
}
