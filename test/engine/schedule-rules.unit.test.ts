/**
 * Rules of vLLM's scheduler that few recordings show. Drafts: kept by a request that is left out of a step, narrowed by
 * the threshold where they are padding, never in the way of a request that just fits. The watermark, and a preemption
 * ahead of the request that needs the blocks.
 */

import { describe, expect, test } from 'vitest';
import type { EngineConfig } from '../../src/contract/config.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { EngineRequest } from '../../src/contract/request.ts';
import { RequestKind, type SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { FakeWorker, oracleNextToken, randomFrom } from './fake-worker.ts';

const CONFIG: EngineConfig = {
  blockSize: 4,
  numBlocks: 30,
  maxNumSeqs: 4,
  maxNumBatchedTokens: 64,
  maxModelLen: 40,
  policy: 'fcfs',
  asyncScheduling: true,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: false,
  watermark: 0,
  numSpeculativeTokens: 2,
};

const requestOf = (requestId: string, prompt: readonly number[], maxTokens: number, priority = 0): EngineRequest => ({
  requestId,
  promptTokenIds: Uint32Array.from(prompt),
  sampling: {
    maxTokens,
    minTokens: 0,
    eosTokenId: null,
    stopTokenIds: [],
    returnRoutedExperts: false,
    routedExpertsPromptStart: 0,
  },
  priority,
  arrivalTime: 0,
  cacheSalt: null,
});

/** What the request must be answered with. */
const answerTo = (prompt: readonly number[], maxTokens: number): number[] => {
  const tokens = [...prompt];
  for (let i = 0; i < maxTokens; i += 1) tokens.push(oracleNextToken(tokens));
  return tokens.slice(prompt.length);
};

/** An engine and its worker, `depth` steps under way at most. */
class Run {
  readonly engine: EngineCore;
  readonly answers: Map<string, number[]> = new Map();
  readonly #worker: FakeWorker;
  readonly #depth: number;
  readonly #inFlight: ModelRunnerOutput[] = [];

  constructor(config: EngineConfig, depth: number = 1) {
    this.engine = new EngineCore(config, null);
    this.#worker = new FakeWorker(config, randomFrom(1));
    this.#depth = depth;
  }

  /**
   * Begins one step; outputs of earlier ones are taken in as far as that is needed. Returns what it plans, as `index:
   * tokens+drafts`.
   */
  step(): string[] {
    if (this.#inFlight.length === this.#depth) this.finish();
    const plan = this.engine.beginStep();
    if (plan === null) return [];
    const shown = Array.from({ length: plan.numRequests }, (_, i) => describePlan(plan, i));
    this.#inFlight.push(this.#worker.execute(plan));
    return shown;
  }

  finish(): void {
    const output = this.#inFlight.shift();
    if (output === undefined) return;
    for (const { requestId, newTokenIds } of this.engine.finishStep(output)) {
      this.answers.set(requestId, [...(this.answers.get(requestId) ?? []), ...newTokenIds]);
    }
  }

  /** Runs to the end. Returns the number of steps. */
  drain(most: number): number {
    for (let numSteps = 0; numSteps < most; numSteps += 1) {
      if (this.engine.isIdle) return numSteps;
      if (this.step().length === 0) this.finish();
      this.engine.checkIntegrity();
    }
    throw new Error(`${most} steps did not bring the engine to its end`);
  }
}

const describePlan = (plan: SchedulerOutput, i: number): string => {
  const numDrafts = plan.draftOffsets[i + 1]! - plan.draftOffsets[i]!;
  const kind = plan.kinds[i] === RequestKind.running ? '' : 'joins ';
  return `${kind}${plan.requestIndices[i]}: ${plan.numScheduledTokens[i]! - numDrafts}+${numDrafts}`;
};

describe.each([true, false])('asyncScheduling %s', (asyncScheduling) => {
  test('a request without budget keeps its drafts until it runs', () => {
    const run = new Run({ ...CONFIG, asyncScheduling, maxNumBatchedTokens: 6 });
    const requests = [requestOf('a', [1, 2], 2), requestOf('b', [3, 4], 9), requestOf('c', [5, 6], 9)];
    for (const request of requests) run.engine.addRequest(request);
    expect(run.step()).toEqual(['joins 0: 2+0', 'joins 1: 2+0', 'joins 2: 2+0']);
    expect(run.step()).toEqual(['0: 1+2', '1: 1+2']);
    expect(run.step()).toEqual(['1: 1+2', '2: 1+2']);
    run.drain(50);
    for (const { requestId, promptTokenIds, sampling } of requests) {
      expect(run.answers.get(requestId)).toEqual(answerTo([...promptTokenIds], sampling.maxTokens));
    }
  });

  test('a preempted request has no drafts when it resumes', () => {
    const run = new Run({ ...CONFIG, asyncScheduling });
    run.engine.addRequest(requestOf('a', [1, 2, 3], 9));
    run.step();
    run.finish();
    expect(run.engine.resetPrefixCache({ resetRunning: true })).toBe(true);
    expect(run.step()).toEqual(['joins 0: 4+0']);
    run.drain(50);
    expect(run.answers.get('a')).toEqual(answerTo([1, 2, 3], 9));
  });

  test('a single token joins decodes in their shape, as far as the threshold lets it', () => {
    for (const [threshold, joined] of [
      [0, 'joins 1: 1+3'],
      [4, 'joins 1: 1+3'],
      [3, 'joins 1: 1+2'],
      [2, 'joins 1: 1+1'],
      [1, 'joins 1: 1+0'],
    ] as const) {
      const config = { ...CONFIG, asyncScheduling, numSpeculativeTokens: 3, longPrefillTokenThreshold: threshold };
      const run = new Run(config);
      run.engine.addRequest(requestOf('a', [1], 12));
      run.step();
      run.engine.addRequest(requestOf('b', [2], 12));
      expect(run.step()[1]).toBe(joined);
      run.drain(100);
      expect(run.answers.get('a')).toEqual(answerTo([1], 12));
      expect(run.answers.get('b')).toEqual(answerTo([2], 12));
    }
  });

  test('padding that the threshold narrows needs its blocks and its budget like any other', () => {
    // Blocks of one slot: the first request holds 7 of 11, and the padded one needs 3 for its tokens and 3 behind them.
    const config = { ...CONFIG, asyncScheduling, numSpeculativeTokens: 3, longPrefillTokenThreshold: 3, blockSize: 1 };
    const tight = new Run({ ...config, numBlocks: 12 });
    tight.engine.addRequest(requestOf('a', [1], 8));
    tight.step();
    tight.engine.addRequest(requestOf('b', [2], 2));
    expect(tight.step()).toEqual(['0: 1+2']);
    // In its full width it must fit the budget, although fewer of its tokens would run.
    const poor = new Run({ ...config, maxNumBatchedTokens: 6 });
    poor.engine.addRequest(requestOf('a', [1], 8));
    poor.step();
    poor.engine.addRequest(requestOf('b', [2], 2));
    expect(poor.step()).toEqual(['0: 1+2']);
  });
});

describe('a lone request that just fits the pool runs to its end', () => {
  const cases = [1, 2, 3, 4, 5].flatMap((blockSize) =>
    [1, 2, 3, 4].flatMap((numSpeculativeTokens) =>
      [false, true].flatMap((asyncScheduling) =>
        [true, false].map((enablePrefixCaching) => ({
          blockSize,
          numSpeculativeTokens,
          asyncScheduling,
          enablePrefixCaching,
        })),
      ),
    ),
  );
  test.each(cases)(
    '$blockSize slots a block, $numSpeculativeTokens drafts, async $asyncScheduling, caching $enablePrefixCaching',
    (options) => {
      const { blockSize, numSpeculativeTokens, asyncScheduling } = options;
      for (let maxTokens = 1; maxTokens <= 2 * blockSize + 3; maxTokens += 1) {
        for (const depth of asyncScheduling ? [1, 2, 3] : [1]) {
          const prompt = [7, 1, 4];
          const inputs = prompt.length + maxTokens - 1;
          const usable = Math.ceil((inputs + numSpeculativeTokens) / blockSize);
          const config = { ...CONFIG, ...options, watermark: 0.3, numBlocks: usable + 1, maxNumBatchedTokens: 5 };
          const run = new Run(config, depth);
          run.engine.addRequest(requestOf('a', prompt, maxTokens));
          run.drain(40 * (maxTokens + 3));
          expect(run.answers.get('a')).toEqual(answerTo(prompt, maxTokens));
          if (usable < 2) continue;
          const smaller = new EngineCore({ ...config, numBlocks: usable }, null);
          expect(() => smaller.addRequest(requestOf('a', prompt, maxTokens))).toThrow(
            expect.objectContaining({ code: 'EXCEEDS_POOL' }),
          );
        }
      }
    },
  );
});

test('the watermark is left to requests that run, and to nobody else', () => {
  const config = { ...CONFIG, numSpeculativeTokens: 0, numBlocks: 11, watermark: 0.2 };
  const run = new Run(config);
  run.engine.addRequest(requestOf('a', [...Array(37).keys()], 1));
  run.engine.addRequest(requestOf('b', [50], 1));
  // The first takes all ten blocks.
  expect(run.step()).toEqual(['joins 0: 37+0']);
  run.drain(10);
  const shared = new Run(config);
  shared.engine.addRequest(requestOf('a', [...Array(28).keys()], 5));
  shared.engine.addRequest(requestOf('b', [50, 51], 1));
  shared.engine.addRequest(requestOf('c', [60, 61], 1));
  // Seven blocks, then one; two of ten are left, and stay.
  expect(shared.step()).toEqual(['joins 0: 28+0', 'joins 1: 2+0']);
  shared.drain(20);
});

test('a request that is preempted ahead of the one that needs its blocks keeps no other out of the step', () => {
  const config = { ...CONFIG, numSpeculativeTokens: 0, policy: 'priority', numBlocks: 4 } as const;
  const run = new Run(config, 2);
  run.engine.addRequest(requestOf('a', [1, 2], 3, 2));
  expect(run.step()).toEqual(['joins 0: 2+0']);
  run.engine.addRequest(requestOf('b', [3, 4, 5], 4, 0));
  run.engine.addRequest(requestOf('c', [6], 3, 1));
  expect(run.step()).toEqual(['0: 1+0', 'joins 1: 3+0', 'joins 2: 1+0']);
  expect(run.step()).toEqual(['0: 1+0', '1: 1+0', '2: 1+0']);
  // The last token of the first is on its way. It is passed over, and then loses its block to the second.
  expect(run.step()).toEqual(['1: 1+0', '2: 1+0']);
  expect(run.engine.stats()).toMatchObject({ numPreemptions: 1, numWithdrawals: 0 });
  run.drain(50);
  expect(run.answers.get('a')).toEqual(answerTo([1, 2], 3));
  expect(run.answers.get('b')).toEqual(answerTo([3, 4, 5], 4));
  expect(run.answers.get('c')).toEqual(answerTo([6], 3));
});

test('a request that is taken out of the step leaves no hash on a block that the step would have filled', () => {
  const config = { ...CONFIG, numSpeculativeTokens: 0, policy: 'priority', longPrefillTokenThreshold: 6 } as const;
  const run = new Run({ ...config, numBlocks: 8 });
  const prompt = [...Array(24).keys()];
  run.engine.addRequest(requestOf('a', prompt, 2, 1));
  expect(run.step()).toEqual(['joins 0: 6+0']);
  run.engine.addRequest(requestOf('b', [31, 32, 33, 34, 35, 36, 37, 38, 39], 1, 0));
  expect(run.step()).toEqual(['0: 6+0', 'joins 1: 6+0']);
  // The first takes the last two of seven blocks, and fills one of them; then the second needs one.
  expect(run.step()).toEqual(['1: 3+0']);
  expect(run.engine.stats()).toMatchObject({ numWithdrawals: 1, numCachedBlocks: 3 + 2 });
  run.drain(50);
  expect(run.answers.get('a')).toEqual(answerTo(prompt, 2));
});
