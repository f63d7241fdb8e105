/**
 * `POST /inference/v1/generate`: tokens in, tokens out (vLLM's `entrypoints/serve/disagg/protocol.py`). Nothing in the
 * body says which of its three kinds of clients sent it; they differ in the form of rows, and in how long an answer is
 * by default.
 */

import type { BodyFields } from '../../body/body-fields.ts';
import { badField } from '../../body/body-fields.ts';
import { refuseForeign, sglangsFields } from '../../body/foreign-fields.ts';
import type { JobLimits } from '../../body/generation-job.ts';
import { readCountedLogprobs } from '../../body/logprob-fields.ts';
import { readJob, restOfContext } from '../../body/read-job.ts';
import { readGenerateRowFields, type RowFields } from '../../body/row-fields.ts';
import type { AnswerForm, Asked } from '../answer-form.ts';
import { ending } from '../openai/openai-form.ts';
import { asId, chatLogprobs, promptMember } from '../openai/openai-logprobs.ts';

/** The default of vLLM's `SamplingParams`. */
const DEFAULT_MAX_TOKENS = 16;

/** How the clients of this path differ. */
export type TokensClient = Readonly<{
  rows: (fields: BodyFields, params: BodyFields, limits: JobLimits) => RowFields;
  /** Without `max_tokens` an answer is as long as the context allows. */
  fillsContext: boolean;
}>;

/** Plain clients of vLLM. */
export const plainTokens: TokensClient = { rows: readGenerateRowFields, fillsContext: false };

/** Throws HttpError for the first field that is wrong. */
export function readTokens(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  { rows, fillsContext }: TokensClient,
): Asked {
  refuseForeign(fields, sglangsFields);
  const params = fields.object('sampling_params');
  refuseForeign(params, sglangsFields);
  const job = readJob(fields, headerId, limits, {
    params,
    rows: () => rows(fields, params, limits),
    logprobs: () => readCountedLogprobs(params),
    maxTokens: (prompts) =>
      params.whole('max_tokens', 1, Number.MAX_SAFE_INTEGER) ??
      (fillsContext ? restOfContext(prompts, limits) : DEFAULT_MAX_TOKENS),
    prompts: () => {
      const prompt = fields.tokenIds('token_ids', limits.vocabSize, limits.maxModelLen);
      if (prompt !== null && prompt.length > 0) return [prompt];
      throw badField('token_ids', prompt ?? undefined, 'a non-empty list of token ids');
    },
  });
  return { job, form: tokensForm };
}

const choice: AnswerForm['choice'] = (view) => ({
  index: view.choice.index,
  token_ids: view.tokenIds,
  logprobs: chatLogprobs(view.logprobs, asId),
  ...ending(view),
});

const tokensForm: AnswerForm = {
  idPrefix: '',
  choice,
  answer: (choices, { id, tokenizer }, [first]) => ({
    request_id: id,
    choices,
    ...promptMember(first!, tokenizer),
  }),
  delta: choice,
  event: (delta, view, { id, tokenizer }) => ({ request_id: id, choices: [delta], ...promptMember(view, tokenizer) }),
  lastEvents: () => [],
};
