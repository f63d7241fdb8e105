/**
 * The requests of a burst all finish in the same step of a scheduler that serves running requests first and splits
 * prompts over steps.
 */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { burst } from '../../src/workload/burst.ts';
import type { Workload } from '../../src/workload/workload.ts';
import { commonPrefix, userError } from './helpers.ts';

/**
 * In which step each request samples its last token: running requests first, in order of admission, then waiting ones.
 */
function finishSteps(workload: Workload, budget: number): number[] {
  const live = workload.requests.map(({ promptTokenIds, maxTokens }) => ({
    numPromptTokens: promptTokenIds.length,
    numComputed: 0,
    numOutputs: 0,
    maxTokens,
    finishStep: 0,
  }));
  for (let step = 1; live.some((request) => request.finishStep === 0); step++) {
    if (step > 10_000) throw new Error('the burst does not end');
    let left = budget;
    for (const request of live) {
      if (request.finishStep > 0) continue;
      const numTokens = Math.min(left, request.numPromptTokens + request.numOutputs - request.numComputed);
      left -= numTokens;
      request.numComputed += numTokens;
      if (numTokens === 0 || request.numComputed < request.numPromptTokens) continue;
      request.numOutputs++;
      if (request.numOutputs === request.maxTokens) request.finishStep = step;
    }
  }
  return live.map((request) => request.finishStep);
}

function expectBurst(workload: Workload, budget: number, totalTokens: number, outputTokens: number): void {
  expect(new Set(finishSteps(workload, budget)).size).toBe(1);
  for (const { promptTokenIds, maxTokens } of workload.requests) {
    expect(promptTokenIds.length + maxTokens).toBe(totalTokens);
    expect(maxTokens).toBeGreaterThanOrEqual(outputTokens);
  }
  expect(workload.minConcurrency).toBe(workload.requests.length);
}

test.each([512, 2048, 8192])('64 requests of 4,096 tokens finish in one step at a budget of %i tokens', (budget) => {
  const workload = burst({
    seed: 0,
    vocabSize: 201_088,
    requests: 64,
    totalTokens: 4096,
    maxNumBatchedTokens: budget,
  });
  expectBurst(workload, budget, 4096, 16);
  // The last output is as short as was asked for, give or take a step.
  expect(workload.requests.at(-1)!.maxTokens).toBeLessThanOrEqual(17);
});

test('64 requests at lengthScale 16 are of 4,096 tokens', () => {
  expectBurst(burst({ seed: 0, vocabSize: 201_088, requests: 64, lengthScale: 16 }), 2048, 4096, 256);
});

test('any burst finishes in one step, with outputs of at least outputTokens', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 2, max: 500 }),
      fc.nat(),
      fc.integer({ min: 1, max: 300 }),
      (requests, totalTokens, output, spare) => {
        const outputTokens = 1 + (output % (totalTokens - 1));
        const maxNumBatchedTokens = requests + spare;
        const workload = burst({ seed: 0, vocabSize: 100, requests, totalTokens, outputTokens, maxNumBatchedTokens });
        expectBurst(workload, maxNumBatchedTokens, totalTokens, outputTokens);
      },
    ),
  );
});

test('no two prompts share a prefix: a prefix cache cannot upset the arithmetic', () => {
  const prompts = burst({ seed: 0, vocabSize: 1000, requests: 32 }).requests.map((request) => request.promptTokenIds);
  for (const [number, prompt] of prompts.entries()) {
    for (const earlier of prompts.slice(0, number)) expect(commonPrefix(earlier, prompt)).toBe(0);
  }
});

test.each([
  [{ totalTokens: 1 }, 'totalTokens is 1; give a whole number from 2 to 16777216'],
  [{ totalTokens: 1e15 }, 'totalTokens is 1000000000000000; give a whole number from 2 to 16777216'],
  [{ totalTokens: Number.NaN }, 'totalTokens is NaN; give a whole number from 2 to 16777216'],
  [{ totalTokens: 8, outputTokens: 8 }, 'outputTokens is 8; give a whole number from 1 to 7'],
  [{ outputTokens: 0 }, 'outputTokens is 0; give a whole number from 1 to 255'],
  [{ maxNumBatchedTokens: -5 }, 'maxNumBatchedTokens is -5; give a whole number from 1 to 16777216'],
  [
    { maxNumBatchedTokens: 16 },
    'maxNumBatchedTokens is 16; give more than the number of requests, 16: they are to finish in one step',
  ],
])('%o is refused by name', (options, message) => {
  expect(userError(() => burst({ seed: 0, vocabSize: 100, ...options }))).toBe(`BAD_VALUE ${message}`);
});
