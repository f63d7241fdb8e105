/** The body of `POST /inference/v1/generate`: tokens in, tokens out (vLLM's `entrypoints/serve/disagg/protocol.py`). */

import { badField } from './body-fields.ts';
import type { BodyFields } from './body-fields.ts';
import type { GenerationJob, JobLimits } from './generation-job.ts';
import {
  checkPromptStart,
  readGenerateRowFields,
  readIdentity,
  readSampling,
  refuseUnsupported,
  withMaxTokens,
} from './sampling-fields.ts';

/** Of vLLM's `SamplingParams`. */
const DEFAULT_MAX_TOKENS = 16;

/** Throws HttpError for the first field that is wrong. */
export function readGenerateBody(fields: BodyFields, headerId: string | null, limits: JobLimits): GenerationJob {
  const identity = readIdentity(fields, headerId, limits);
  refuseUnsupported(fields);
  const params = fields.object('sampling_params');
  refuseUnsupported(params);
  const rows = readGenerateRowFields(fields, params);
  const sampling = readSampling(params, rows, limits);
  const maxTokens = params.whole('max_tokens', 1, Number.MAX_SAFE_INTEGER) ?? DEFAULT_MAX_TOKENS;
  const prompt = fields.tokenIds('token_ids', limits.vocabSize, limits.maxModelLen);
  if (prompt === null || prompt.length === 0)
    throw badField('token_ids', prompt ?? undefined, 'a non-empty list of token ids');
  checkPromptStart(rows.promptStart, [prompt]);
  return {
    ...identity,
    prompts: [prompt],
    n: sampling.n,
    sampling: withMaxTokens(params, sampling, maxTokens),
    rowFormat: rows.format,
    ignoredFields: fields.unread(),
  };
}
