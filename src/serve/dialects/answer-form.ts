/**
 * What a dialect is beside the reading of its requests: the objects that a generation is written in. Rows, server-sent
 * events and the order of it all are the same for every dialect (`answer/answer.ts`).
 */

import type { JsonObject } from '../../rows/json-object.ts';
import type { Choice, Generation } from '../answer/generation.ts';
import type { ShownLogprob } from '../answer/choice-logprobs.ts';
import type { GenerationJob } from '../body/generation-job.ts';
import type { ByteTokenizer } from '../body/tokenizer.ts';

/** Of the whole answer. */
export type AnswerHead = Readonly<{
  /** The form's prefix and the request's id. */
  id: string;
  /** Seconds since 1970. */
  created: number;
  model: string;
  job: GenerationJob;
  generation: Generation;
  tokenizer: ByteTokenizer;
  eosTokenId: number;
  /** As of the moment. */
  weightVersion: () => string;
}>;

/** All of a choice, or what a stream shows of it at once: what is new, or what came so far. */
export type ChoiceView = Readonly<{
  choice: Choice;
  text: string;
  tokenIds: readonly number[];
  /** One a token; `null`: not wanted. */
  logprobs: readonly ShownLogprob[] | null;
  /** Of the prompt, from where they are wanted; `null`: not wanted, or shown before. */
  promptLogprobs: readonly ShownLogprob[] | null;
  /** Nothing of the choice was shown before. */
  isFirst: boolean;
  isLast: boolean;
}>;

/** Objects may have `InParts` inside. */
export type AnswerForm = Readonly<{
  /** Prefix of the ids of the engine's requests and of the answer. */
  idPrefix: string;
  /** A stream shows of a choice all that came so far, and not what is new. */
  isCumulative?: boolean;
  choice: (view: ChoiceView, head: AnswerHead) => JsonObject;
  answer: (choices: readonly JsonObject[], head: AnswerHead, views: readonly ChoiceView[]) => unknown;
  /** A choice in a stream, and the event that it comes in. */
  delta: (view: ChoiceView, head: AnswerHead) => JsonObject;
  event: (delta: JsonObject, view: ChoiceView, head: AnswerHead) => unknown;
  /** Events behind the last of all choices. */
  lastEvents: (head: AnswerHead) => readonly unknown[];
}>;

/** What a request's body is read into. */
export type Asked = Readonly<{ job: GenerationJob; form: AnswerForm }>;
