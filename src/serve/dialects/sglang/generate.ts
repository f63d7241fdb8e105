/** `POST /generate`: SGLang's native API (`managers/io_struct.py`, `managers/tokenizer_manager.py`). */

import type { BodyFields } from '../../body/body-fields.ts';
import { badField, readTokenIds } from '../../body/body-fields.ts';
import { refuseForeign, vllmsFields } from '../../body/foreign-fields.ts';
import type { JobLimits, LogprobsWanted } from '../../body/generation-job.ts';
import { encodeText } from '../../body/prompt-text.ts';
import { readJob } from '../../body/read-job.ts';
import { readSglangRowFields } from '../../body/row-fields.ts';
import type { ByteTokenizer } from '../../body/tokenizer.ts';
import type { AnswerForm, Asked } from '../answer-form.ts';
import { metaInfo } from './meta-info.ts';

const DEFAULT_MAX_TOKENS = 128;
const MOST_TOP = 128;

/** A client may have the rows of the whole prompt. */
export const sglangStartField = { name: 'routed_experts_start_len', isEndAllowed: true };

/** Throws HttpError for the first field that is wrong. */
export function readSglang(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  tokenizer: ByteTokenizer,
): Asked {
  refuseForeign(fields, vllmsFields);
  const params = fields.object('sampling_params');
  refuseForeign(params, vllmsFields);
  let isBatch = false;
  const job = readJob(fields, headerId, limits, {
    params,
    rows: () => readSglangRowFields(fields, limits),
    logprobs: () => readLogprobs(fields),
    maxTokens: () => params.whole('max_new_tokens', 1, Number.MAX_SAFE_INTEGER) ?? DEFAULT_MAX_TOKENS,
    prompts: () => {
      const { prompts, isList } = readPrompts(fields, limits, tokenizer);
      isBatch = isList;
      return prompts;
    },
    startField: sglangStartField,
  });
  return { job, form: sglangForm(isBatch || job.n > 1) };
}

/** `isList`: an answer to several prompts, or with several choices, is a list, and events say which they are of. */
function sglangForm(isList: boolean): AnswerForm {
  const choice: AnswerForm['choice'] = (view, head) => ({
    text: view.text,
    output_ids: view.tokenIds,
    meta_info: metaInfo(view, head),
    ...(isList ? { index: view.choice.index } : {}),
  });
  return {
    idPrefix: '',
    isCumulative: true,
    choice,
    answer: (choices) => (isList ? choices : choices[0]),
    delta: choice,
    event: (delta) => delta,
    lastEvents: () => [],
  };
}

type Prompts = Readonly<{ prompts: readonly Uint32Array[]; isList: boolean }>;

/** `text` or `input_ids`, or a list of these. */
function readPrompts(fields: BodyFields, limits: JobLimits, tokenizer: ByteTokenizer): Prompts {
  const [text, ids] = [fields.raw('text'), fields.raw('input_ids')];
  if ((text === undefined) === (ids === undefined)) {
    throw badField('input_ids', ids, 'either input_ids or text, and not both');
  }
  const name = text === undefined ? 'input_ids' : 'text';
  const value = text ?? ids;
  const isList = Array.isArray(value) && typeof value[0] !== 'number';
  const items = isList ? (value as readonly unknown[]) : [value];
  if (items.length === 0 || items.length > limits.maxChoices) {
    throw badField(name, value, `1 to ${limits.maxChoices} prompts`);
  }
  const prompts = items.map((item, i) => {
    const where = isList ? `${name}[${i}]` : name;
    const prompt =
      typeof item === 'string' && text !== undefined
        ? encodeText(where, item, limits, tokenizer)
        : readTokenIds(where, item, limits.vocabSize, limits.maxModelLen);
    if (prompt.length > 0) return prompt;
    throw badField(where, item, 'a non-empty prompt');
  });
  return { prompts, isList };
}

function readLogprobs(fields: BodyFields): LogprobsWanted | null {
  const numTop = fields.whole('top_logprobs_num', 0, MOST_TOP) ?? 0;
  const from = fields.whole('logprob_start_len', -1, Number.MAX_SAFE_INTEGER) ?? -1;
  if (!fields.flag('return_logprob')) return null;
  return { numTop, promptFrom: from };
}
