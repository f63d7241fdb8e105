/** The body of `POST /v1/completions`. */

import type { BodyFields } from './body-fields.ts';
import { badField, readTokenIds } from './body-fields.ts';
import type { GenerationJob, JobLimits } from './generation-job.ts';
import { encodeText } from './prompt-text.ts';
import { readJob } from './read-job.ts';
import { readRowFields } from './sampling-fields.ts';
import type { ByteTokenizer } from './tokenizer.ts';

/** OpenAI's default. */
const DEFAULT_MAX_TOKENS = 16;

/** Throws HttpError for the first field that is wrong. */
export function readCompletionBody(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  tokenizer: ByteTokenizer,
): GenerationJob {
  return readJob(fields, headerId, limits, {
    params: fields,
    rows: () => readRowFields(fields, 'vllm_xargs'),
    maxTokens: () => fields.whole('max_tokens', 1, Number.MAX_SAFE_INTEGER) ?? DEFAULT_MAX_TOKENS,
    prompts: () => readPrompts(fields.raw('prompt'), limits, tokenizer),
  });
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
