/** What the answers of OpenAI's API, and of those that were made after it, have in common. */

import type { JsonObject } from '../../../rows/json-object.ts';
import type { Generation } from '../../answer/generation.ts';
import type { AnswerForm, AnswerHead, ChoiceView } from '../answer-form.ts';

/** OpenAI names no finish reason for an aborted request; ours is `abort`, as in vLLM. */
export function ending({ choice, isLast }: Pick<ChoiceView, 'choice' | 'isLast'>): JsonObject {
  if (!isLast) return { finish_reason: null, stop_reason: null };
  return { finish_reason: choice.finishReason, stop_reason: choice.stopReason };
}

/** `isFirst`: the prompt's ids come first. */
export function tokenIds({ choice, tokenIds: ids, isFirst }: ChoiceView, { job }: AnswerHead): JsonObject {
  if (!job.returnTokenIds) return {};
  return isFirst ? { prompt_token_ids: Array.from(choice.promptTokenIds), token_ids: ids } : { token_ids: ids };
}

type Envelope = Readonly<{
  idPrefix: string;
  /** Of the answer, and of an event of its stream. */
  object: string;
  chunkObject: string;
  choice: AnswerForm['choice'];
  delta: AnswerForm['delta'];
  /** Members of the answer, or of the first event, that the prompt has. */
  ofPrompt?: (view: ChoiceView, head: AnswerHead) => JsonObject;
}>;

/** Choices in an envelope with the usage. */
export function openAiForm({ idPrefix, object, chunkObject, choice, delta, ofPrompt }: Envelope): AnswerForm {
  return {
    idPrefix,
    choice,
    answer: (choices, head, [first]) => ({
      ...envelope(object, head),
      ...ofPrompt?.(first!, head),
      choices,
      usage: usage(head.generation),
    }),
    delta,
    event: (shown, view, head) => ({
      ...envelope(chunkObject, head),
      ...(view.isFirst ? ofPrompt?.(view, head) : {}),
      choices: [shown],
      ...(head.job.includeUsage ? { usage: null } : {}),
    }),
    lastEvents: (head) =>
      head.job.includeUsage ? [{ ...envelope(chunkObject, head), choices: [], usage: usage(head.generation) }] : [],
  };
}

function envelope(object: string, { id, created, model }: AnswerHead): JsonObject {
  return { id, object, created, model };
}

function usage({ choices }: Generation): JsonObject {
  // Choices of one prompt share it, and it is counted once. What the later ones find cached is the first one's work.
  const prompts = new Map<Uint32Array, number>();
  for (const { promptTokenIds, prefill } of choices) {
    if (!prompts.has(promptTokenIds)) prompts.set(promptTokenIds, prefill?.numCachedTokens ?? 0);
  }
  let promptTokens = 0;
  let cachedTokens = 0;
  for (const [prompt, numCached] of prompts) {
    promptTokens += prompt.length;
    cachedTokens += Math.min(numCached, prompt.length);
  }
  const completionTokens = choices.reduce((sum, choice) => sum + choice.tokenIds.length, 0);
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}
