/** What a request wants of log-probabilities, in the words of OpenAI's API and of vLLM's sampling parameters. */

import { badField, type BodyFields } from './body-fields.ts';
import type { LogprobsWanted } from './generation-job.ts';

/** vLLM's limit, unless its operator raises it. */
const MOST_TOP = 20;

/** `logprobs`: how many of the likeliest tokens beside the sampled one. */
export function readCountedLogprobs(fields: BodyFields): LogprobsWanted | null {
  const count = fields.whole('logprobs', 0, MOST_TOP);
  return wanted(count, fields.whole('prompt_logprobs', 0, MOST_TOP));
}

/** `logprobs`: whether; `top_logprobs`: how many beside. */
export function readFlaggedLogprobs(fields: BodyFields): LogprobsWanted | null {
  const isWanted = fields.flag('logprobs');
  const top = fields.whole('top_logprobs', 0, MOST_TOP);
  if (top !== null && top > 0 && !isWanted) {
    throw badField(fields.nameOf('top_logprobs'), top, '0, or logprobs: true too');
  }
  return wanted(isWanted ? (top ?? 0) : null, fields.whole('prompt_logprobs', 0, MOST_TOP));
}

function wanted(ofOutput: number | null, ofPrompt: number | null): LogprobsWanted | null {
  if (ofOutput === null && ofPrompt === null) return null;
  return { numTop: Math.max(ofOutput ?? 0, ofPrompt ?? 0), promptFrom: ofPrompt === null ? null : 0 };
}
