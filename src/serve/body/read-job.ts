/** Reads what the three request bodies have in common; each body says where its own fields are. */

import type { BodyFields } from './body-fields.ts';
import type { GenerationJob, JobLimits } from './generation-job.ts';
import type { RowFields } from './sampling-fields.ts';
import { checkPromptStart, readIdentity, readSampling, refuseUnsupported, withMaxTokens } from './sampling-fields.ts';

export type JobReader = Readonly<{
  /** Where the sampling parameters are: in the body, or in an object of their own. */
  params: BodyFields;
  rows: () => RowFields;
  maxTokens: () => number;
  prompts: () => readonly Uint32Array[];
}>;

/** Throws HttpError for the first field that is wrong. `headerId`: of the header `X-Request-Id`. */
export function readJob(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  { params, rows: readRows, maxTokens, prompts: readPrompts }: JobReader,
): GenerationJob {
  const identity = readIdentity(fields, headerId, limits);
  refuseUnsupported(fields);
  if (params !== fields) refuseUnsupported(params);
  const rows = readRows();
  const sampling = readSampling(params, rows, limits);
  const withMost = withMaxTokens(params, sampling, maxTokens());
  const prompts = readPrompts();
  checkPromptStart(rows.promptStart, prompts);
  return {
    ...identity,
    prompts,
    n: sampling.n,
    sampling: withMost,
    rowFormat: rows.format,
    ignoredFields: fields.unread(),
  };
}
