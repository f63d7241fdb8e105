/** `POST /v1/chat/completions`: OpenAI's, with vLLM's fields; other dialects of this path begin with it. */

import type { JsonObject } from '../../../rows/json-object.ts';
import type { BodyFields } from '../../body/body-fields.ts';
import { promptOfMessages } from '../../body/chat-template.ts';
import { refuseForeign, sglangsFields } from '../../body/foreign-fields.ts';
import type { GenerationJob, JobLimits } from '../../body/generation-job.ts';
import { readFlaggedLogprobs } from '../../body/logprob-fields.ts';
import { readJob } from '../../body/read-job.ts';
import { readRowFields, type RowFields, type UsualRows } from '../../body/row-fields.ts';
import type { ByteTokenizer } from '../../body/tokenizer.ts';
import type { AnswerForm, AnswerHead, Asked, ChoiceView } from '../answer-form.ts';
import { ending, openAiForm } from './openai-form.ts';
import { asId, asText, chatLogprobs, promptMember, type TokenText } from './openai-logprobs.ts';

/**
 * No model here knows when an answer is complete, and the rest of the context, which is vLLM's default, can be long.
 */
const DEFAULT_MAX_TOKENS = 256;

/** Throws HttpError for the first field that is wrong. `usual`: the form of rows for a client that names none. */
export function readChat(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  tokenizer: ByteTokenizer,
  usual?: UsualRows,
): Asked {
  refuseForeign(fields, sglangsFields);
  const job = readChatJob(fields, headerId, limits, {
    rows: () => readRowFields(fields, 'vllm_xargs', limits, usual),
    prompt: () => promptOfMessages(fields, limits, tokenizer),
  });
  return { job, form: chatForm(tokenText(fields, tokenizer)) };
}

/** Whether tokens are written as their text or as their ids. */
export function tokenText(fields: BodyFields, tokenizer: ByteTokenizer): TokenText {
  return fields.flag('return_tokens_as_token_ids') ? asId : asText(tokenizer);
}

type ChatReader = Readonly<{
  rows: () => RowFields;
  prompt: () => Uint32Array;
  startField?: Readonly<{ name: string; isEndAllowed: boolean }>;
}>;

export function readChatJob(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  { prompt, ...reader }: ChatReader,
): GenerationJob {
  // Arguments of a template that this one does not have.
  fields.raw('chat_template_kwargs');
  return readJob(fields, headerId, limits, {
    ...reader,
    params: fields,
    logprobs: () => readFlaggedLogprobs(fields),
    maxTokens: () => {
      const older = fields.whole('max_tokens', 1, Number.MAX_SAFE_INTEGER);
      return fields.whole('max_completion_tokens', 1, Number.MAX_SAFE_INTEGER) ?? older ?? DEFAULT_MAX_TOKENS;
    },
    prompts: () => [prompt()],
  });
}

/** `more`: members of a choice that another dialect adds. */
export function chatForm(
  text: TokenText,
  more: Readonly<{
    ofMessage?: (view: ChoiceView, head: AnswerHead) => JsonObject;
    ofChoice?: (view: ChoiceView, head: AnswerHead) => JsonObject;
  }> = {},
): AnswerForm {
  const beside = (view: ChoiceView, head: AnswerHead): JsonObject => ({
    logprobs: chatLogprobs(view.logprobs, text),
    ...ending(view),
    ...(head.job.returnTokenIds ? { token_ids: view.tokenIds } : {}),
    ...more.ofChoice?.(view, head),
  });
  return openAiForm({
    idPrefix: 'chatcmpl-',
    object: 'chat.completion',
    chunkObject: 'chat.completion.chunk',
    choice: (view, head) => ({
      index: view.choice.index,
      message: { role: 'assistant', content: view.text, refusal: null, ...more.ofMessage?.(view, head) },
      ...beside(view, head),
    }),
    delta: (view, head) => ({
      index: view.choice.index,
      delta: view.isFirst ? { role: 'assistant', content: view.text } : { content: view.text },
      ...beside(view, head),
    }),
    ofPrompt: (view, { job, tokenizer }) => ({
      ...(job.returnTokenIds ? { prompt_token_ids: Array.from(view.choice.promptTokenIds) } : {}),
      ...promptMember(view, tokenizer),
    }),
  });
}
