/**
 * The engine core at its edges: bad input is refused with one clear error and leaves no trace, an ended or unknown id
 * is harmless, a wrong output is an error before anything changed, and `null` means that there is nothing to do.
 */

import { describe, expect, test } from 'vitest';
import type { EngineConfig } from '../../src/contract/config.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { EngineRequest, SamplingParams } from '../../src/contract/request.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { FakeWorker, randomFrom } from './fake-worker.ts';

const CONFIG: EngineConfig = {
  blockSize: 4,
  numBlocks: 9,
  maxNumSeqs: 4,
  maxNumBatchedTokens: 64,
  maxModelLen: 40,
  policy: 'fcfs',
  asyncScheduling: false,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: true,
  watermark: 0,
  numSpeculativeTokens: 0,
};

const requestOf = (
  id: string,
  promptLength: number,
  sampling: Partial<SamplingParams> = {},
  rest: Partial<EngineRequest> = {},
): EngineRequest => ({
  requestId: id,
  promptTokenIds: Uint32Array.from({ length: promptLength }, (_, i) => i),
  sampling: {
    maxTokens: 4,
    minTokens: 0,
    eosTokenId: null,
    stopTokenIds: [],
    returnRoutedExperts: false,
    routedExpertsPromptStart: 0,
    ...sampling,
  },
  priority: 0,
  arrivalTime: 0,
  cacheSalt: null,
  ...rest,
});

const newWorker = (config = CONFIG): FakeWorker => new FakeWorker(config, randomFrom(1));

describe('addRequest refuses, and the engine stays as it was', () => {
  const cases: [name: string, code: string, part: string, request: EngineRequest][] = [
    ['an id in use', 'DUPLICATE_REQUEST', '"a"', requestOf('a', 3)],
    ['an empty prompt', 'EMPTY_PROMPT', '"b"', requestOf('b', 0)],
    ['no output tokens', 'BAD_MAX_TOKENS', 'max_tokens 0', requestOf('b', 3, { maxTokens: 0 })],
    ['negative maxTokens', 'BAD_MAX_TOKENS', 'max_tokens -1', requestOf('b', 3, { maxTokens: -1 })],
    ['broken maxTokens', 'BAD_MAX_TOKENS', 'max_tokens 1.5', requestOf('b', 3, { maxTokens: 1.5 })],
    ['maxTokens NaN', 'BAD_MAX_TOKENS', 'max_tokens NaN', requestOf('b', 3, { maxTokens: Number.NaN })],
    ['minTokens over maxTokens', 'BAD_VALUE', 'minTokens is 5', requestOf('b', 3, { minTokens: 5 })],
    ['minTokens negative', 'BAD_VALUE', 'minTokens is -1', requestOf('b', 3, { minTokens: -1 })],
    ['a prompt start at its end', 'PROMPT_START_OUT_OF_RANGE', '3', requestOf('b', 3, { routedExpertsPromptStart: 3 })],
    ['a negative prompt start', 'PROMPT_START_OUT_OF_RANGE', '-1', requestOf('b', 3, { routedExpertsPromptStart: -1 })],
    ['a broken prompt start', 'PROMPT_START_OUT_OF_RANGE', '0.5', requestOf('b', 3, { routedExpertsPromptStart: 0.5 })],
    ['a prompt over maxModelLen', 'PROMPT_TOO_LONG', '40', requestOf('b', 40)],
    ['a prompt over the pool', 'EXCEEDS_POOL', 'can need 9', requestOf('b', 33, { maxTokens: 1 })],
    ['outputs over the pool', 'EXCEEDS_POOL', 'can need 9', requestOf('b', 3, { maxTokens: 31 })],
    ['a priority that is no number', 'BAD_VALUE', 'priority is NaN', requestOf('b', 3, {}, { priority: Number.NaN })],
    ['an arrival that is no number', 'BAD_VALUE', 'arrivalTime', requestOf('b', 3, {}, { arrivalTime: Number.NaN })],
  ];
  test.each(cases)('%s', (_, code, part, request) => {
    const engine = new EngineCore(CONFIG, null);
    engine.addRequest(requestOf('a', 3));
    const before = engine.stats();
    expect(() => engine.addRequest(request)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(part) }),
    );
    expect(engine.stats()).toEqual(before);
    engine.checkIntegrity();
    engine.abort(['a']);
    expect(engine.stats().numWaiting).toBe(0);
  });
  test('what just fits is served to its end', () => {
    for (const asyncScheduling of [false, true]) {
      const config = { ...CONFIG, asyncScheduling };
      const engine = new EngineCore(config, null);
      engine.addRequest(requestOf('a', 3, { maxTokens: 30 }));
      const worker = newWorker(config);
      let numTokens = 0;
      for (let step = engine.beginStep(); step !== null; step = engine.beginStep()) {
        for (const output of engine.finishStep(worker.execute(step))) numTokens += output.newTokenIds.length;
      }
      expect(numTokens).toBe(30);
      expect(engine.stats().numPreemptions).toBe(0);
      expect(engine.isIdle).toBe(true);
    }
  });
  test('an id can be used again once its request has ended', () => {
    const engine = new EngineCore(CONFIG, null);
    engine.addRequest(requestOf('a', 3));
    engine.abort(['a']);
    engine.addRequest(requestOf('a', 3));
    expect(engine.stats().numWaiting).toBe(1);
  });
  test('the prompt is copied: the caller may reuse its array', () => {
    const engine = new EngineCore(CONFIG, null);
    const request = requestOf('a', 3);
    engine.addRequest(request);
    request.promptTokenIds.fill(99);
    expect([...engine.beginStep()!.newRequests[0]!.tokenIds.subarray(0, 3)]).toEqual([0, 1, 2]);
  });
});

test.each<[keyof EngineConfig, unknown]>([
  ['blockSize', 0],
  ['blockSize', 1.5],
  ['numBlocks', 1],
  ['numBlocks', 2 ** 25],
  ['maxNumSeqs', 0],
  ['maxNumBatchedTokens', -5],
  ['maxNumBatchedTokens', Number.POSITIVE_INFINITY],
  ['maxModelLen', 1],
  ['policy', 'lottery'],
  ['asyncScheduling', 1],
  ['enablePrefixCaching', 'yes'],
  ['enableChunkedPrefill', undefined],
  ['longPrefillTokenThreshold', -1],
  ['reserveFullIsl', null],
  ['watermark', 1],
  ['watermark', Number.NaN],
  ['numSpeculativeTokens', -1],
])('the configuration %s = %s is refused by name', (field, value) => {
  expect(() => new EngineCore({ ...CONFIG, [field]: value }, null)).toThrow(
    expect.objectContaining({ code: 'BAD_VALUE', message: expect.stringContaining(`${field} is ${String(value)};`) }),
  );
});

test('without chunked prefill a prompt must fit one step, or it could never run', () => {
  expect(() => new EngineCore({ ...CONFIG, enableChunkedPrefill: false, maxNumBatchedTokens: 39 }, null)).toThrow(
    'maxNumBatchedTokens is 39',
  );
});

describe('beginStep', () => {
  test('answers null when there is nothing to do, and tells the workers of every end before it does', () => {
    const engine = new EngineCore(CONFIG, null);
    const worker = newWorker();
    expect(engine.beginStep()).toBeNull();
    engine.addRequest(requestOf('a', 3));
    engine.finishStep(worker.execute(engine.beginStep()!));
    engine.abort(['a']);
    expect(engine.isIdle).toBe(false);
    const step = engine.beginStep()!;
    expect([step.stepId, step.numRequests, ...step.finishedIndices]).toEqual([1, 0, 0]);
    engine.finishStep(worker.execute(step));
    expect(worker.batch.size).toBe(0);
    expect(engine.beginStep()).toBeNull();
    expect(engine.isIdle).toBe(true);
  });
  test('an empty plan takes no step id', () => {
    const engine = new EngineCore(CONFIG, null);
    engine.addRequest(requestOf('a', 3));
    const output = newWorker().execute(engine.beginStep()!);
    expect(engine.beginStep()).toBeNull();
    engine.finishStep(output);
    expect(engine.beginStep()!.stepId).toBe(1);
  });
});

describe('abort', () => {
  test('of an unknown, ended or repeated id gives nothing', () => {
    const engine = new EngineCore(CONFIG, null);
    expect(engine.abort(['a'])).toEqual([]);
    engine.addRequest(requestOf('a', 3));
    expect(engine.abort(['a', 'a', 'b'])).toEqual([
      {
        requestId: 'a',
        newTokenIds: [],
        finishReason: 'abort',
        stopReason: null,
        prefill: { numPromptTokens: 3, numCachedTokens: 0, numPreemptions: 0 },
        routedExperts: null,
      },
    ]);
    expect(engine.abort(['a'])).toEqual([]);
  });
  test('with steps in flight delivers nothing more, and its blocks are free at once (L8)', () => {
    const config = { ...CONFIG, asyncScheduling: true };
    const engine = new EngineCore(config, null);
    const worker = newWorker(config);
    engine.addRequest(requestOf('a', 9, { maxTokens: 20 }));
    const outputs = [worker.execute(engine.beginStep()!), worker.execute(engine.beginStep()!)];
    expect(engine.abort(['a'])).toHaveLength(1);
    expect(engine.stats().numUsedBlocks).toBe(0);
    for (const output of outputs) expect(engine.finishStep(output)).toEqual([]);
    engine.checkIntegrity();
    engine.finishStep(worker.execute(engine.beginStep()!));
    expect([worker.batch.size, engine.isIdle]).toEqual([0, true]);
  });
});

const start = (): { engine: EngineCore; good: ModelRunnerOutput } => {
  const engine = new EngineCore(CONFIG, null);
  engine.addRequest(requestOf('a', 3));
  engine.addRequest(requestOf('b', 3));
  return { engine, good: newWorker().execute(engine.beginStep()!) };
};

describe('finishStep refuses an output that is not that of the oldest step, and changes nothing', () => {
  test.each<[string, (good: ModelRunnerOutput) => ModelRunnerOutput, string]>([
    ['another step', (good) => ({ ...good, stepId: 1 }), 'step 0 is the oldest'],
    ['a request too few', (good) => ({ ...good, numRequests: 1 }), '1 requests instead of 2'],
    [
      'a stranger',
      (good) => ({ ...good, requestIndices: Uint32Array.of(0, 77) }),
      'request 77, which was not scheduled',
    ],
    ['a request twice', (good) => ({ ...good, requestIndices: Uint32Array.of(0, 0) }), 'request 0 twice'],
    ['no token', (good) => ({ ...good, sampledOffsets: Uint32Array.of(0, 0, 1) }), '0 tokens for request'],
    ['a token too many', (good) => ({ ...good, sampledOffsets: Uint32Array.of(0, 2, 3) }), '2 tokens for request'],
  ])('%s', (_, spoil, message) => {
    const { engine, good } = start();
    expect(() => engine.finishStep(spoil(good))).toThrow(message);
    engine.checkIntegrity();
    expect(engine.finishStep(good)).toHaveLength(2);
    expect(() => engine.finishStep(good)).toThrow('no step is in flight');
  });
});

test('lost workers: what was delivered stays, the rest is computed again, and nothing is delivered twice (L8)', () => {
  const config = { ...CONFIG, asyncScheduling: true };
  const engine = new EngineCore(config, null);
  let worker = newWorker(config);
  const tokens: number[] = [];
  engine.addRequest(requestOf('a', 5, { maxTokens: 6 }));
  const first = worker.execute(engine.beginStep()!);
  worker.execute(engine.beginStep()!);
  tokens.push(...engine.finishStep(first)[0]!.newTokenIds);
  engine.onWorkersLost();
  worker = newWorker(config);
  let step: SchedulerOutput | null = engine.beginStep();
  expect([step!.numComputedTokens[0], step!.numScheduledTokens[0], step!.newRequests[0]!.numTokens]).toEqual([0, 6, 6]);
  for (; step !== null; step = engine.beginStep()) {
    for (const { newTokenIds } of engine.finishStep(worker.execute(step))) tokens.push(...newTokenIds);
  }
  const calm = new EngineCore(CONFIG, null);
  const calmWorker = newWorker();
  const expected: number[] = [];
  calm.addRequest(requestOf('a', 5, { maxTokens: 6 }));
  for (let next = calm.beginStep(); next !== null; next = calm.beginStep()) {
    for (const { newTokenIds } of calm.finishStep(calmWorker.execute(next))) expected.push(...newTokenIds);
  }
  expect(tokens).toEqual(expected);
});

describe('preemption under priority', () => {
  const config: EngineConfig = { ...CONFIG, policy: 'priority', reserveFullIsl: false };
  test('a request withdrawn from a step leaves no hash behind for the tokens that it did not compute (L9)', () => {
    const engine = new EngineCore({ ...config, longPrefillTokenThreshold: 8 }, null);
    const worker = newWorker();
    const step = (): void => {
      engine.finishStep(worker.execute(engine.beginStep()!));
    };
    engine.addRequest(requestOf('low', 30, { maxTokens: 1 }, { priority: 1 }));
    step();
    const other = Uint32Array.from({ length: 8 }, (_, i) => 10 - i);
    engine.addRequest(requestOf('high', 8, { maxTokens: 2 }, { promptTokenIds: other }));
    step();
    // "low" is given tokens 16 … 23 and two blocks; then "high" needs one, and "low" has to go. "high" takes one of the
    // two.
    const plan = engine.beginStep()!;
    expect([...plan.preemptedIndices, plan.numRequests]).toEqual([0, 1]);
    expect(engine.finishStep(worker.execute(plan))[0]!.finishReason).toBe('length');
    const resumed = engine.beginStep()!;
    expect([resumed.requestIndices[0], resumed.numComputedTokens[0]]).toEqual([0, 16]);
  });
  test('of equals the one admitted last gives way, so that one of them always comes to its end', () => {
    const engine = new EngineCore({ ...config, numBlocks: 5 }, null);
    const worker = newWorker();
    for (const id of ['a', 'b']) engine.addRequest(requestOf(id, 7, { maxTokens: 6 }, { cacheSalt: id }));
    let preempted: number[] = [];
    while (preempted.length === 0) {
      const plan = engine.beginStep()!;
      preempted = [...plan.preemptedIndices];
      engine.finishStep(worker.execute(plan));
    }
    expect(preempted).toEqual([1]);
  });
});

test('a plan and its arrays are reused after finishStep: a step at steady state makes no new ones', () => {
  const engine = new EngineCore(CONFIG, null);
  const worker = newWorker();
  engine.addRequest(requestOf('a', 3));
  const first = engine.beginStep()!;
  const arrays = Object.values(first).filter((value) => value instanceof Uint32Array);
  engine.finishStep(worker.execute(first));
  const second = engine.beginStep()!;
  expect(second).toBe(first);
  expect(Object.values(second).filter((value) => value instanceof Uint32Array)).toEqual(arrays);
});
