/** The body of `POST /inference/v1/generate`: tokens in, tokens out (vLLM's `entrypoints/serve/disagg/protocol.py`). */

import { badField } from './body-fields.ts';
import type { BodyFields } from './body-fields.ts';
import type { GenerationJob, JobLimits } from './generation-job.ts';
import { readJob } from './read-job.ts';
import { readGenerateRowFields } from './sampling-fields.ts';

/** The default of vLLM's `SamplingParams`. */
const DEFAULT_MAX_TOKENS = 16;

/** Throws HttpError for the first field that is wrong. */
export function readGenerateBody(fields: BodyFields, headerId: string | null, limits: JobLimits): GenerationJob {
  const params = fields.object('sampling_params');
  return readJob(fields, headerId, limits, {
    params,
    rows: () => readGenerateRowFields(fields, params),
    maxTokens: () => params.whole('max_tokens', 1, Number.MAX_SAFE_INTEGER) ?? DEFAULT_MAX_TOKENS,
    prompts: () => {
      const prompt = fields.tokenIds('token_ids', limits.vocabSize, limits.maxModelLen);
      if (prompt !== null && prompt.length > 0) return [prompt];
      throw badField('token_ids', prompt ?? undefined, 'a non-empty list of token ids');
    },
  });
}
