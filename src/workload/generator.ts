/** What the built-in generators have in common. */

import { RoutedExpertsError } from '../contract/errors.ts';
import { MAX_PROMPT_TOKENS, MAX_REQUESTS, positiveNumber, seedNumber, vocabularySize, wholeNumber } from './checks.ts';

/** A generator is a pure function of these: equal options, equal bytes. */
export type GeneratorOptions = Readonly<{
  seed: number;
  /** Token ids are below this. */
  vocabSize: number;
  /** ≥ 1; each generator has a default. */
  requests?: number | undefined;
  /** Multiplies every length, > 0; 1 if absent. The lengths at 1 suit a software adapter, a GPU can take 16. */
  lengthScale?: number | undefined;
  /** Token budget of one step of the engine that will run it; 2,048 if absent. Only `burst` needs it. */
  maxNumBatchedTokens?: number | undefined;
  /** Tokens of each prompt, ≥ 1. Only of `fixed`. */
  promptTokens?: number | undefined;
}>;

export type GeneratorShape = Readonly<{
  seed: number;
  vocabSize: number;
  numRequests: number;
  lengthScale: number;
}>;

/**
 * Checks what every generator takes.
 *
 * @param longestPrompt of one request, in tokens, at `lengthScale` 1
 * @throws BAD_VALUE, naming the option, its value and its limit
 */
export function generatorShape(
  options: GeneratorOptions,
  defaultRequests: number,
  longestPrompt: number,
): GeneratorShape {
  const seed = seedNumber(options.seed);
  const vocabSize = vocabularySize(options.vocabSize);
  const numRequests = wholeNumber('requests', options.requests ?? defaultRequests, 1, MAX_REQUESTS);
  const lengthScale = positiveNumber('lengthScale', options.lengthScale ?? 1);
  if (numRequests * Math.max(1, longestPrompt * lengthScale) > MAX_PROMPT_TOKENS) {
    const wanted =
      `fewer requests or a smaller scale: ${numRequests} prompts of up to ${longestPrompt} tokens ` +
      `times the scale are over ${MAX_PROMPT_TOKENS} tokens`;
    throw RoutedExpertsError.of('BAD_VALUE', 'lengthScale', lengthScale, wanted);
  }
  return { seed, vocabSize, numRequests, lengthScale };
}
