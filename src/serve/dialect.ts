/** How each endpoint words an answer: the same generation as completion, chat completion, or plain tokens. */

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

/** Objects without `choices`, `usage` and rows, which are the same everywhere. */
export type Dialect = Readonly<{
  /** What the ids of the engine's requests, and of the answer, begin with. */
  idPrefix: string;
  answer: (id: string, created: number, model: string) => Json;
  choice: (choice: Choice, text: string, job: GenerationJob) => Json;
  chunk: (id: string, created: number, model: string) => Json;
  delta: (delta: Delta, job: GenerationJob) => Json;
}>;

/** OpenAI has no word for an aborted request. */
function finishReason(choice: Choice): string | null {
  return choice.finishReason;
}

function tokenIds(job: GenerationJob, choice: Choice, ids: readonly number[], withPrompt: boolean): Json {
  if (!job.returnTokenIds) return {};
  return withPrompt ? { prompt_token_ids: Array.from(choice.promptTokenIds), token_ids: ids } : { token_ids: ids };
}

function ending(choice: Choice): Json {
  return { finish_reason: finishReason(choice), stop_reason: choice.stopReason };
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
    ...tokenIds(job, choice, choice.tokenIds, true),
  }),
  chunk: (id, created, model) => ({ id, object: 'text_completion', created, model }),
  delta: ({ choice, text, tokenIds: ids, isFirst, isLast }, job) => ({
    index: choice.index,
    text,
    logprobs: null,
    ...(isLast ? ending(choice) : goingOn),
    ...tokenIds(job, choice, ids, isFirst),
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
    ...tokenIds(job, choice, choice.tokenIds, true),
  }),
  chunk: (id, created, model) => ({ id, object: 'chat.completion.chunk', created, model }),
  delta: ({ choice, text, tokenIds: ids, isFirst, isLast }, job) => ({
    index: choice.index,
    delta: isFirst ? { role: 'assistant', content: text } : { content: text },
    logprobs: null,
    ...(isLast ? ending(choice) : goingOn),
    ...tokenIds(job, choice, ids, isFirst),
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
