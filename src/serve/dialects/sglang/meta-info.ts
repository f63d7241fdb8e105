/** `meta_info`: all that SGLang says of an answer beside its text. Rows are put in behind it. */

import type { JsonObject } from '../../../rows/json-object.ts';
import { longList } from '../../../rows/json-parts.ts';
import type { ShownLogprob } from '../../answer/choice-logprobs.ts';
import type { AnswerHead, ChoiceView } from '../answer-form.ts';

export function metaInfo(view: ChoiceView, head: AnswerHead): JsonObject {
  const { choice, isLast, logprobs, promptLogprobs } = view;
  const { job } = head;
  const numPrompt = choice.promptTokenIds.length;
  return {
    id: choice.requestId,
    finish_reason: isLast ? finishReason(view, head) : null,
    prompt_tokens: numPrompt,
    completion_tokens: view.tokenIds.length,
    cached_tokens: Math.min(choice.prefill?.numCachedTokens ?? 0, numPrompt),
    weight_version: head.weightVersion(),
    ...(logprobs === null ? {} : listsOf('output', logprobs, job.logprobs!.numTop)),
    ...(promptLogprobs === null ? {} : listsOf('input', firstUnknown(promptLogprobs), job.logprobs!.numTop)),
  };
}

/** An object, where OpenAI's is a word. */
function finishReason({ choice, tokenIds }: ChoiceView, { eosTokenId }: AnswerHead): JsonObject {
  switch (choice.finishReason) {
    case 'stop':
      return { type: 'stop', matched: choice.stopReason ?? eosTokenId };
    case 'abort':
      return { type: 'abort', message: tokenIds.length === 0 ? 'Abort before prefill' : 'Aborted' };
    default:
      return { type: 'length', length: tokenIds.length };
  }
}

/** SGLang computes nothing for the first position that is asked for. */
function firstUnknown([first, ...rest]: readonly ShownLogprob[]): readonly ShownLogprob[] {
  return first === undefined ? [] : [{ ...first, logprob: null, top: [] }, ...rest];
}

function listsOf(side: 'input' | 'output', shown: readonly ShownLogprob[], numTop: number): JsonObject {
  const chosen = { [`${side}_token_logprobs`]: longList(shown, ({ logprob, token }) => [logprob, token, null]) };
  if (numTop === 0) return chosen;
  const top = longList(shown, (one) =>
    one.logprob === null ? null : one.top.map(({ logprob, token }) => [logprob, token, null]),
  );
  return { ...chosen, [`${side}_top_logprobs`]: top };
}
