/** Decides when a request ends by itself. After `check_stop` of `vllm/v1/core/sched/utils.py`. */

import type { FinishReason } from '../contract/engine-core-output.ts';
import type { Request } from './request.ts';

/**
 * Returns why `tokenId`, the request's last token, ends it, or `null`; sets `stopReason` for a stop token. EOS and stop
 * tokens count from `minTokens` outputs on; the length limits always count, or a request could neither end nor go on.
 */
export const checkStop = (request: Request, tokenId: number, maxModelLen: number): FinishReason | null => {
  const numOutputTokens = request.numTokens - request.numPromptTokens;
  if (numOutputTokens >= request.minTokens) {
    if (tokenId === request.eosTokenId) return 'stop';
    if (request.stopTokenIds.length > 0 && request.stopTokenIds.includes(tokenId)) {
      request.stopReason = tokenId;
      return 'stop';
    }
  }
  return numOutputTokens >= request.maxTokens || request.numTokens >= maxModelLen ? 'length' : null;
};
