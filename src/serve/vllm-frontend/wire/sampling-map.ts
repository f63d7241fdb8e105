/** `sampling_params` of a request: a map without the keys that are at vLLM's defaults. */

import type { SamplingParams } from '../../../contract/request.ts';
import type { BodyFields } from '../../body/body-fields.ts';
import { show } from '../../body/body-fields.ts';

/** Whose rows are returned: of every request, or of those with `return_routed_experts` in their `extra_args`. */
export const ROWS_FOR = ['all', 'asked', 'none'] as const;
export type RowsFor = (typeof ROWS_FOR)[number];

export type SamplingRules = Readonly<{
  maxModelLen: number;
  rowsFor: RowsFor;
  vocabSize: number;
}>;

export type SamplingMap = Readonly<{
  sampling: SamplingParams;
  /** The most likely tokens wanted beside each sampled token and each prompt token; `null`: no logprobs. */
  logprobs: number | null;
  promptLogprobs: number | null;
  /** A cached prefix may not be used. */
  skipsPrefixCache: boolean;
  /** Parameters that were given and have no effect. */
  ignored: readonly string[];
}>;

const DEFAULT_MAX_TOKENS = 16;
const MOST_STOP_TOKENS = 65_536;
const MOST_LOGPROBS = 2 ** 20;
const MOST_TOKEN_ID = 2 ** 32 - 1;

/**
 * They bend what is drawn. Here nothing is drawn: the next token is a function of the tokens before it. Temperature and
 * the like are in nearly every request, and are not named.
 */
const WITHOUT_EFFECT = [
  'logit_bias',
  'allowed_token_ids',
  '_bad_words_token_ids',
  'logprob_token_ids',
  'thinking_token_budget',
  'repetition_detection',
];

const isGiven = (value: unknown): boolean =>
  value !== undefined && !(Array.isArray(value) && value.length === 0) && value !== false;

/**
 * Throws an error for what cannot be read, and for what would change the form of the output and cannot be honoured.
 */
export function readSamplingMap(fields: BodyFields, promptLength: number, rules: SamplingRules): SamplingMap {
  const { maxModelLen, rowsFor, vocabSize } = rules;
  refuse(fields, 'structured_outputs', 'this engine cannot hold tokens to a grammar');
  const extra = fields.object('extra_args');
  const asked = extra.raw('return_routed_experts');
  const returnRoutedExperts = rowsFor === 'all' || (rowsFor === 'asked' && (asked === true || asked === 1));
  const logprobs = numLogprobs(fields, 'logprobs', { vocabSize, numPositions: 1 });
  const promptLogprobs = numLogprobs(fields, 'prompt_logprobs', { vocabSize, numPositions: promptLength });
  const sampling: SamplingParams = {
    maxTokens: fields.has('max_tokens')
      ? (fields.whole('max_tokens', 1, MOST_TOKEN_ID) ?? maxModelLen - promptLength)
      : DEFAULT_MAX_TOKENS,
    minTokens: fields.whole('min_tokens', 0, MOST_TOKEN_ID) ?? 0,
    eosTokenId: fields.flag('ignore_eos') ? null : fields.whole('_eos_token_id', 0, MOST_TOKEN_ID),
    stopTokenIds: Array.from(fields.tokenIds('stop_token_ids', MOST_TOKEN_ID, MOST_STOP_TOKENS) ?? []),
    returnRoutedExperts,
    routedExpertsPromptStart: returnRoutedExperts
      ? (fields.whole('routed_experts_prompt_start', 0, MOST_TOKEN_ID) ?? 0)
      : 0,
  };
  return {
    sampling,
    logprobs,
    promptLogprobs,
    skipsPrefixCache: fields.flag('skip_reading_prefix_cache'),
    ignored: WITHOUT_EFFECT.filter((name) => isGiven(fields.raw(name))),
  };
}

/** Made in one turn of the event loop, they may not be more. */
function numLogprobs(
  fields: BodyFields,
  name: string,
  { vocabSize, numPositions }: Readonly<{ vocabSize: number; numPositions: number }>,
): number | null {
  const given = fields.whole(name, -1, MOST_TOKEN_ID);
  if (given === null) return null;
  const numTop = given < 0 ? vocabSize : Math.min(given, vocabSize);
  if (numTop * numPositions <= MOST_LOGPROBS) return numTop;
  const most = Math.floor(MOST_LOGPROBS / numPositions);
  throw new Error(`${fields.nameOf(name)} is ${given} for ${numPositions} positions; ask for at most ${most}`);
}

function refuse(fields: BodyFields, name: string, why: string): void {
  const value = fields.raw(name);
  if (value !== undefined) throw new Error(`${fields.nameOf(name)} is ${show(value)}: ${why}; leave it out`);
}
