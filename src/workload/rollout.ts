/**
 * `rollout`: the generation phase of reinforcement learning. Few prompts, a group of samples of each, long outputs of
 * very unequal length, all there from the start.
 *
 * The samples of a group share their prompt but for its last token, which numbers the sample. The model is a pure
 * function of the prefix: over equal prompts all samples would be one and the same text, and a row delivered to the
 * wrong one would go unseen.
 */

import { generatorShape } from './generator.ts';
import type { GeneratorOptions } from './generator.ts';
import { lengthAround } from './lengths.ts';
import { random } from './random.ts';
import { text } from './tokens.ts';
import type { Workload, WorkloadRequest } from './workload.ts';

const DEFAULT_REQUESTS = 16;
const SAMPLES_PER_PROMPT = 8;
const PROMPT_TOKENS_MEDIAN = 48;
const PROMPT_DOUBLINGS = 1;
const OUTPUT_TOKENS_MEDIAN = 112;
const OUTPUT_DOUBLINGS = 2;
const LONGEST_PROMPT = 2 ** PROMPT_DOUBLINGS * PROMPT_TOKENS_MEDIAN;

/**
 * 16 requests by default: 8 samples of each of 2 prompts, about 3,000 tokens.
 *
 * @throws BAD_VALUE for an option out of range
 */
export function rollout(options: GeneratorOptions): Workload {
  const { seed, vocabSize, numRequests, lengthScale } = generatorShape(options, DEFAULT_REQUESTS, LONGEST_PROMPT);
  const promptLengths = random(seed, 'rollout/prompt-lengths');
  const outputLengths = random(seed, 'rollout/output-lengths');
  const requests: WorkloadRequest[] = [];
  for (let group = 0; requests.length < numRequests; group++) {
    const length = lengthAround(promptLengths, PROMPT_TOKENS_MEDIAN * lengthScale, PROMPT_DOUBLINGS);
    const prompt = text(length + 1, { id: group, random: random(seed, `rollout/prompt/${group}`), vocabSize });
    for (let sample = 0; sample < SAMPLES_PER_PROMPT && requests.length < numRequests; sample++) {
      const promptTokenIds = prompt.slice();
      promptTokenIds[length] = sample % vocabSize;
      requests.push({
        requestId: `rollout-${group}-${sample}`,
        promptTokenIds,
        maxTokens: lengthAround(outputLengths, OUTPUT_TOKENS_MEDIAN * lengthScale, OUTPUT_DOUBLINGS),
        priority: 0,
        arrivalMs: 0,
        cacheSalt: null,
      });
    }
  }
  return { name: 'rollout', requests, minConcurrency: 1 };
}
