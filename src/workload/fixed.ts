/**
 * `fixed`: prompts of one length and outputs of one length, and no two prompts share a prefix: what a length costs,
 * with nothing else in it.
 */

import { MAX_PROMPT_TOKENS, wholeNumber } from './checks.ts';
import type { GeneratorOptions } from './generator.ts';
import { generatorShape } from './generator.ts';
import { wholeLength } from './lengths.ts';
import { random } from './random.ts';
import { text } from './tokens.ts';
import type { Workload } from './workload.ts';

const DEFAULT_REQUESTS = 16;
const DEFAULT_PROMPT_TOKENS = 128;
const OUTPUT_TOKENS = 32;

/**
 * 16 requests of 128 and 32 tokens by default. A `promptTokens` of its own is not scaled; outputs are.
 *
 * @throws BAD_VALUE for an option out of range
 */
export function fixed(options: GeneratorOptions): Workload {
  const longest = options.promptTokens === undefined ? DEFAULT_PROMPT_TOKENS : 0;
  const { seed, vocabSize, numRequests, lengthScale } = generatorShape(options, DEFAULT_REQUESTS, longest);
  const promptTokens = wholeNumber(
    'promptTokens',
    options.promptTokens ?? wholeLength(DEFAULT_PROMPT_TOKENS * lengthScale),
    1,
    Math.floor(MAX_PROMPT_TOKENS / numRequests),
  );
  const maxTokens = wholeLength(OUTPUT_TOKENS * lengthScale);
  const requests = Array.from({ length: numRequests }, (_, number) => ({
    requestId: `fixed-${number}`,
    promptTokenIds: text(promptTokens, { id: number, random: random(seed, `fixed/prompt/${number}`), vocabSize }),
    maxTokens,
    priority: 0,
    arrivalMs: 0,
    cacheSalt: null,
  }));
  return { name: 'fixed', requests, minConcurrency: 1 };
}
