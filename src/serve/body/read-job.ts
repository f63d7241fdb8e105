/** Reads what all request bodies have in common; each dialect says where its own fields are. */

import type { BodyFields } from './body-fields.ts';
import type { GenerationJob, JobLimits, LogprobsWanted } from './generation-job.ts';
import { checkPromptStart, type RowFields } from './row-fields.ts';
import { readIdentity, readSampling, refuseUnsupported, withMaxTokens } from './sampling-fields.ts';

export type JobReader = Readonly<{
  /** Where the sampling parameters are: in the body, or in an object of their own. */
  params: BodyFields;
  rows: () => RowFields;
  logprobs: () => LogprobsWanted | null;
  maxTokens: (prompts: readonly Uint32Array[]) => number;
  prompts: () => readonly Uint32Array[];
  /** The field that says from where on rows are wanted. */
  startField?: Readonly<{ name: string; isEndAllowed: boolean }>;
}>;

const START_FIELD = { name: 'routed_experts_prompt_start', isEndAllowed: false };

/** Throws HttpError for the first field that is wrong. `headerId`: of the header `X-Request-Id`. */
export function readJob(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  reader: JobReader,
): GenerationJob {
  const { params, startField = START_FIELD } = reader;
  const identity = readIdentity(fields, params, headerId, limits);
  refuseUnsupported(fields);
  if (params !== fields) refuseUnsupported(params);
  const rows = reader.rows();
  const { n, ...sampling } = readSampling(params, rows, limits);
  const prompts = reader.prompts();
  const withMost = withMaxTokens(params, sampling, reader.maxTokens(prompts));
  checkPromptStart(rows.promptStart, prompts, startField);
  return {
    ...identity,
    prompts,
    n,
    sampling: withMost,
    logprobs: reader.logprobs(),
    rows: rows.wanted,
    ignoredFields: fields.unread(),
  };
}

/** All that the context leaves to the longest of the prompts, and one token at least: longer ones are refused later. */
export function restOfContext(prompts: readonly Uint32Array[], { maxModelLen }: JobLimits): number {
  const longest = prompts.reduce((most, prompt) => Math.max(most, prompt.length), 0);
  return Math.max(1, maxModelLen - longest);
}
