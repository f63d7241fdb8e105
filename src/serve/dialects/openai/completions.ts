/** `POST /v1/completions`: OpenAI's, with vLLM's fields. */

import { refuseForeign, sglangsFields } from '../../body/foreign-fields.ts';
import type { BodyFields } from '../../body/body-fields.ts';
import { badField, readTokenIds } from '../../body/body-fields.ts';
import type { JobLimits } from '../../body/generation-job.ts';
import { readCountedLogprobs } from '../../body/logprob-fields.ts';
import { encodeText } from '../../body/prompt-text.ts';
import { readJob } from '../../body/read-job.ts';
import { readRowFields } from '../../body/row-fields.ts';
import type { ByteTokenizer } from '../../body/tokenizer.ts';
import type { AnswerForm, Asked, AnswerHead, ChoiceView } from '../answer-form.ts';
import { ending, openAiForm, tokenIds } from './openai-form.ts';
import { asId, asText, completionLogprobs, promptMember, type TokenText } from './openai-logprobs.ts';

/** OpenAI's default. */
const DEFAULT_MAX_TOKENS = 16;

/** Throws HttpError for the first field that is wrong. */
export function readCompletion(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  tokenizer: ByteTokenizer,
): Asked {
  refuseForeign(fields, sglangsFields);
  const isExact = fields.flag('return_tokens_as_token_ids');
  const job = readJob(fields, headerId, limits, {
    params: fields,
    rows: () => readRowFields(fields, 'vllm_xargs', limits),
    logprobs: () => readCountedLogprobs(fields),
    maxTokens: () => fields.whole('max_tokens', 1, Number.MAX_SAFE_INTEGER) ?? DEFAULT_MAX_TOKENS,
    prompts: () => readPrompts(fields.raw('prompt'), limits, tokenizer),
  });
  return { job, form: completionForm(isExact ? asId : asText(tokenizer)) };
}

function completionForm(text: TokenText): AnswerForm {
  const choice = (view: ChoiceView, head: AnswerHead): Readonly<Record<string, unknown>> => ({
    index: view.choice.index,
    text: view.text,
    logprobs: completionLogprobs(view.logprobs, text),
    ...ending(view),
    ...promptMember(view, head.tokenizer),
    ...tokenIds(view, head),
  });
  const object = 'text_completion';
  return openAiForm({ idPrefix: 'cmpl-', object, chunkObject: object, choice, delta: choice });
}

/** A string, a list of token ids, or a list of either. */
function readPrompts(value: unknown, limits: JobLimits, tokenizer: ByteTokenizer): Uint32Array[] {
  const isList = Array.isArray(value) && value.length > 0 && typeof value[0] !== 'number';
  const prompts = isList ? (value as readonly unknown[]) : [value];
  if (prompts.length > limits.maxChoices) {
    throw badField('prompt', value, `at most ${limits.maxChoices} prompts in one request`);
  }
  return prompts.map((prompt, i) => readPrompt(isList ? `prompt[${i}]` : 'prompt', prompt, limits, tokenizer));
}

function readPrompt(name: string, value: unknown, limits: JobLimits, tokenizer: ByteTokenizer): Uint32Array {
  const wanted = 'a non-empty string, a non-empty list of token ids, or a list of either';
  let tokens: Uint32Array;
  if (typeof value === 'string') {
    tokens = encodeText(name, value, limits, tokenizer);
  } else {
    if (!Array.isArray(value)) throw badField(name, value, wanted);
    tokens = readTokenIds(name, value, limits.vocabSize, limits.maxModelLen);
  }
  if (tokens.length === 0) throw badField(name, value, wanted);
  return tokens;
}
