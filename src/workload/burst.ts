/**
 * `burst`: requests of one total length, prompt and output together, that all finish in the same step: the worst case
 * for whatever is done per finished request.
 *
 * A step has a budget of B tokens, so n long prompts are prefilled one after the other and their outputs would end one
 * after the other. Request i therefore gets a prompt that is longer, and an output that is shorter, by one token for
 * each step that its prefill ends later:
 *
 *     prefill of request i ends, and its first token is sampled, in step sᵢ    (steps count from 1)
 *     prompt  = base + sᵢ
 *     output  = total − prompt
 *
 * Its last token is sampled in step sᵢ + output − 1 = total − base − 1, the same for all i.
 *
 * In step s every prefilled request has computed exactly base + s tokens, no matter when its prefill ended. While
 * prompts are left, each step spends its whole budget, so after step s there are ⌊B·s / (base + s)⌋ prefilled requests,
 * and sᵢ = ⌈(i+1)·base / (B − i − 1)⌉, at least 1. The largest base for which the last output still has `outputTokens`
 * is ⌊(total − outputTokens)·(B − n) / B⌋.
 *
 * It holds for a scheduler that serves running requests first and splits prompts over steps (vLLM's, with chunked
 * prefill and no `longPrefillTokenThreshold`), when all n requests are there before the first step, may run at once and
 * fit the KV pool.
 */

import { RoutedExpertsError } from '../contract/errors.ts';
import { MAX_PROMPT_TOKENS, wholeNumber } from './checks.ts';
import { generatorShape } from './generator.ts';
import type { GeneratorOptions } from './generator.ts';
import { wholeLength } from './lengths.ts';
import { random } from './random.ts';
import { text } from './tokens.ts';
import type { Workload, WorkloadRequest } from './workload.ts';

const DEFAULT_REQUESTS = 16;
const DEFAULT_TOTAL_TOKENS = 256;
const DEFAULT_OUTPUT_TOKENS = 16;
const DEFAULT_MAX_NUM_BATCHED_TOKENS = 2048;
/** Times the longest prompt it is still a whole number that a double holds exactly. */
const MAX_MAX_NUM_BATCHED_TOKENS = 2 ** 24;

export type BurstOptions = GeneratorOptions &
  Readonly<{
    /** Prompt and output of each request, in tokens, ≥ 2; `256 · lengthScale` if absent. */
    totalTokens?: number | undefined;
    /**
     * The shortest output, in tokens, ≥ 1 and below `totalTokens`; `16 · lengthScale`, at most half of the total, if
     * absent.
     */
    outputTokens?: number | undefined;
  }>;

/**
 * 16 requests of 256 tokens by default. 64 requests of 4,096 tokens are `lengthScale: 16`, or with the shortest outputs
 * `burst({ seed, vocabSize, requests: 64, totalTokens: 4096, maxNumBatchedTokens })`.
 *
 * @throws BAD_VALUE for an option out of range, and for a token budget that is not above the number of requests
 */
export function burst(options: BurstOptions): Workload {
  // A total of its own takes the place of the scaled one.
  const longest = options.totalTokens === undefined ? DEFAULT_TOTAL_TOKENS : 0;
  const { seed, vocabSize, numRequests, lengthScale } = generatorShape(options, DEFAULT_REQUESTS, longest);
  const totalTokens = wholeNumber(
    'totalTokens',
    options.totalTokens ?? Math.max(2, wholeLength(DEFAULT_TOTAL_TOKENS * lengthScale)),
    2,
    Math.floor(MAX_PROMPT_TOKENS / numRequests),
  );
  const defaultOutput = Math.min(wholeLength(DEFAULT_OUTPUT_TOKENS * lengthScale), Math.floor(totalTokens / 2));
  const outputTokens = wholeNumber('outputTokens', options.outputTokens ?? defaultOutput, 1, totalTokens - 1);
  const budget = wholeNumber(
    'maxNumBatchedTokens',
    options.maxNumBatchedTokens ?? DEFAULT_MAX_NUM_BATCHED_TOKENS,
    1,
    MAX_MAX_NUM_BATCHED_TOKENS,
  );
  if (budget <= numRequests) {
    const wanted = `more than the number of requests, ${numRequests}: they are to finish in one step`;
    throw RoutedExpertsError.of('BAD_VALUE', 'maxNumBatchedTokens', budget, wanted);
  }

  const base = Math.floor(((totalTokens - outputTokens) * (budget - numRequests)) / budget);
  const requests = Array.from({ length: numRequests }, (_, number): WorkloadRequest => {
    const prefillStep = Math.max(1, Math.ceil(((number + 1) * base) / (budget - number - 1)));
    const promptLength = base + prefillStep;
    return {
      requestId: `burst-${number}`,
      promptTokenIds: text(promptLength, { id: number, random: random(seed, `burst/prompt/${number}`), vocabSize }),
      maxTokens: totalTokens - promptLength,
      priority: 0,
      arrivalMs: 0,
      cacheSalt: null,
    };
  });
  return { name: 'burst', requests, minConcurrency: numRequests };
}
