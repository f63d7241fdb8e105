/** The JSON of each endpoint: the same generation as completion, chat completion, or plain tokens. */

import type { Choice } from './generation.ts';
import type { GenerationJob } from './body/generation-job.ts';

type Json = Readonly<Record<string, unknown>>;

/** A part of a stream: what is new of one choice. */
export type Delta = Readonly<{
  choice: Choice;
  text: string;
  tokenIds: readonly number[];
  isFirst: boolean;
  isLast: boolean;
}>;

/** Makes the objects without `choices`, `usage` and rows, which all endpoints share. */
export type Dialect = Readonly<{
  /** Prefix of the ids of the engine's requests and of the response. */
  idPrefix: string;
  answer: (id: string, created: number, model: string) => Json;
  choice: (choice: Choice, text: string, job: GenerationJob) => Json;
  chunk: (id: string, created: number, model: string) => Json;
  delta: (delta: Delta, job: GenerationJob) => Json;
}>;

/** `isFirst`: the prompt's ids come first. */
function tokenIds(
  { choice, tokenIds: ids, isFirst }: Pick<Delta, 'choice' | 'tokenIds' | 'isFirst'>,
  job: GenerationJob,
): Json {
  if (!job.returnTokenIds) return {};
  return isFirst ? { prompt_token_ids: Array.from(choice.promptTokenIds), token_ids: ids } : { token_ids: ids };
}

/** OpenAI names no finish reason for an aborted request; ours is `abort`, as in vLLM. */
function ending({ finishReason, stopReason }: Choice): Json {
  return { finish_reason: finishReason, stop_reason: stopReason };
}

const goingOn: Json = { finish_reason: null, stop_reason: null };

export const completions: Dialect = {
  idPrefix: 'cmpl-',
  answer: (id, created, model) => ({ id, object: 'text_completion', created, model }),
  choice: (choice, text, job) => ({
    index: choice.index,
    text,
    logprobs: null,
    ...ending(choice),
    ...tokenIds({ choice, tokenIds: choice.tokenIds, isFirst: true }, job),
  }),
  chunk: (id, created, model) => ({ id, object: 'text_completion', created, model }),
  delta: (delta, job) => ({
    index: delta.choice.index,
    text: delta.text,
    logprobs: null,
    ...(delta.isLast ? ending(delta.choice) : goingOn),
    ...tokenIds(delta, job),
  }),
};

export const chat: Dialect = {
  idPrefix: 'chatcmpl-',
  answer: (id, created, model) => ({ id, object: 'chat.completion', created, model }),
  choice: (choice, text, job) => ({
    index: choice.index,
    message: { role: 'assistant', content: text, refusal: null },
    logprobs: null,
    ...ending(choice),
    ...tokenIds({ choice, tokenIds: choice.tokenIds, isFirst: true }, job),
  }),
  chunk: (id, created, model) => ({ id, object: 'chat.completion.chunk', created, model }),
  delta: (delta, job) => ({
    index: delta.choice.index,
    delta: delta.isFirst ? { role: 'assistant', content: delta.text } : { content: delta.text },
    logprobs: null,
    ...(delta.isLast ? ending(delta.choice) : goingOn),
    ...tokenIds(delta, job),
  }),
};

export const generate: Dialect = {
  idPrefix: '',
  answer: (id) => ({ request_id: id }),
  choice: (choice) => ({ index: choice.index, token_ids: choice.tokenIds, logprobs: null, ...ending(choice) }),
  chunk: (id) => ({ request_id: id }),
  delta: ({ choice, tokenIds: ids, isLast }) => ({
    index: choice.index,
    token_ids: ids,
    logprobs: null,
    ...(isLast ? ending(choice) : goingOn),
  }),
};
