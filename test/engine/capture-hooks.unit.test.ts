/**
 * The calls that a capture design gets, in the order that `CaptureEngineHalf` documents: L5 (nobody opted in: not one
 * call), L3 and L8 (take, then release, before the blocks are freed; nothing after it).
 */

import { describe, expect, test } from 'vitest';
import type { EngineConfig } from '../../src/contract/config.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { FakeWorker, randomFrom } from './fake-worker.ts';
import { RowKeeper } from './row-keeper.ts';

const CONFIG: EngineConfig = {
  blockSize: 4,
  numBlocks: 7,
  maxNumSeqs: 4,
  maxNumBatchedTokens: 64,
  maxModelLen: 64,
  policy: 'fcfs',
  asyncScheduling: false,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: false,
  watermark: 0,
  numSpeculativeTokens: 0,
};

const setUp = (config: EngineConfig = CONFIG) => {
  const keeper = new RowKeeper();
  const engine = new EngineCore(config, keeper);
  const worker = new FakeWorker(config, randomFrom(1));
  const add = (requestId: string, prompt: readonly number[], maxTokens: number, returnRoutedExperts = true): void =>
    engine.addRequest({
      requestId,
      promptTokenIds: Uint32Array.from(prompt),
      sampling: {
        maxTokens,
        minTokens: 0,
        eosTokenId: null,
        stopTokenIds: [],
        returnRoutedExperts,
        routedExpertsPromptStart: 0,
      },
      priority: 0,
      arrivalTime: 0,
      cacheSalt: null,
    });
  const step = (): void => {
    engine.finishStep(worker.execute(engine.beginStep()!));
  };
  const drain = (): void => {
    while (!engine.isIdle) step();
  };
  return { keeper, engine, worker, add, step, drain };
};

const count = (length: number): number[] => Array.from({ length }, (_, i) => i % 11);

test('a request alone: wants; per step onScheduled, onStepOutput, take; at the end release, with its blocks', () => {
  const { keeper, add, drain } = setUp();
  add('a', count(5), 2);
  drain();
  expect(keeper.calls).toEqual([
    'wants a',
    'onScheduled 0 a',
    'onStepOutput 0',
    'take a 1 null',
    'onScheduled 1 a',
    'onStepOutput 1',
    'take a 1 length',
    'release a 2',
  ]);
});

test('nobody opted in: the design is asked once per request and never called again (L5)', () => {
  const { keeper, engine, add, step, drain } = setUp();
  for (const id of ['a', 'b', 'c', 'd']) add(id, count(9), 6, false);
  step();
  engine.resetPrefixCache({ resetRunning: true });
  engine.abort(['b']);
  drain();
  expect(engine.stats().numPreemptions).toBeGreaterThan(0);
  expect(keeper.calls).toEqual(['wants a', 'wants b', 'wants c', 'wants d']);
});

test('a step without a wanted request is not mentioned, one with a wanted request mentions nobody else', () => {
  const { keeper, add, step, drain } = setUp();
  add('a', count(3), 3, false);
  step();
  add('b', [7, 7, 7], 1);
  drain();
  expect(keeper.calls).toEqual([
    'wants a',
    'wants b',
    'onScheduled 1 b',
    'onStepOutput 1',
    'take b 1 length',
    'release b 1',
  ]);
});

test('a prefix lookup asks of each block; one without rows is computed again, with all that stands behind it', () => {
  for (const usable of [2, 1, 0]) {
    const { keeper, engine, add, drain } = setUp();
    add('a', count(9), 1);
    drain();
    keeper.calls.length = 0;
    keeper.keeps = (_, ordinal) => ordinal < usable;
    add('b', count(9), 1);
    const plan = engine.beginStep()!;
    expect([plan.numComputedTokens[0], plan.numScheduledTokens[0]]).toEqual([usable * 4, 9 - usable * 4]);
    const hit = usable > 0 ? [`onPrefixHit b ${usable}`] : [];
    const asked = ['hasRows b 0', 'hasRows b 1'].slice(0, usable + 1);
    expect(keeper.calls).toEqual(['wants b', ...asked, ...hit, 'onScheduled 2 b']);
    engine.checkIntegrity();
  }
});

test('a preemption is told while blocks are held, an eviction when a hash is lost, both before onScheduled', () => {
  const { keeper, engine, add, step, drain } = setUp();
  add('a', count(8), 8);
  add('b', [5, 5, 5, 5, 5, 5, 5, 5], 8);
  for (let i = 0; i < 30 && engine.stats().numPreemptions === 0; i += 1) {
    keeper.calls.length = 0;
    step();
  }
  const at = keeper.calls.findIndex((call) => call.startsWith('onPreempt b'));
  expect(at).toBeGreaterThanOrEqual(0);
  expect(keeper.calls[at]).toBe('onPreempt b 3');
  expect(keeper.calls.findIndex((call) => call.startsWith('onScheduled'))).toBeGreaterThan(at);
  drain();
  expect(keeper.calls.some((call) => call.startsWith('onBlockEvicted'))).toBe(true);
  expect(keeper.calls.filter((call) => call.startsWith('hasRows b'))).not.toEqual([]);
  expect(keeper.liveCounts()).toEqual({ requests: 0, bytes: 0 });
});

describe('what ends or voids a request in flight', () => {
  const config = { ...CONFIG, asyncScheduling: true };
  test('an abort takes and releases once; the output that arrives later brings it nothing', () => {
    const { keeper, engine, worker, add } = setUp(config);
    add('a', count(5), 9);
    const outputs = [worker.execute(engine.beginStep()!), worker.execute(engine.beginStep()!)];
    keeper.calls.length = 0;
    engine.abort(['a']);
    for (const output of outputs) engine.finishStep(output);
    expect(keeper.calls).toEqual(['take a 0 abort', 'release a 2', 'onStepOutput 0', 'onStepOutput 1']);
  });
  test('a cache reset preempts, then resets; outputs under way are dropped, for the design as for the caller', () => {
    const { keeper, engine, worker, add } = setUp(config);
    add('a', count(5), 9);
    const output = worker.execute(engine.beginStep()!);
    keeper.calls.length = 0;
    expect(engine.resetPrefixCache({ resetRunning: true })).toBe(true);
    expect(engine.finishStep(output)).toEqual([]);
    expect(keeper.calls).toEqual(['onPreempt a 2', 'onCacheReset', 'onStepOutput 0']);
    expect(keeper.liveCounts().bytes).toBe(0);
  });
  test('a reset that is refused tells nobody', () => {
    const { keeper, engine, add } = setUp();
    add('a', count(5), 9);
    engine.beginStep();
    keeper.calls.length = 0;
    expect(engine.resetPrefixCache({ resetRunning: false })).toBe(false);
    expect(keeper.calls).toEqual([]);
  });
});

describe('after the first opted-in request (L5)', () => {
  test('the design hears of the eviction of its blocks, and of nobody else’s', () => {
    const { keeper, engine, add, drain } = setUp();
    add('a', count(9), 1);
    drain();
    keeper.calls.length = 0;
    for (let i = 0; i < 4; i += 1) add(`plain ${i}`, Array<number>(9).fill(i), 4, false);
    drain();
    // Blocks of ordinary requests were evicted, too.
    expect(engine.stats().numCachedBlocks).toBeLessThan(4 * 2);
    const plain = [0, 1, 2, 3].map((i) => `wants plain ${i}`);
    expect(keeper.calls.toSorted()).toEqual(['onBlockEvicted 1', 'onBlockEvicted 2', ...plain]);
  });
  test('a cache reset is told once more, and a worker’s loss not at all', () => {
    const { keeper, engine, add, step, drain } = setUp();
    add('a', count(9), 1);
    drain();
    add('plain', count(9), 9, false);
    step();
    keeper.calls.length = 0;
    for (let i = 0; i < 3; i += 1) expect(engine.resetPrefixCache({ resetRunning: true })).toBe(true);
    engine.onWorkersLost();
    expect(keeper.calls).toEqual(['onCacheReset']);
  });
});
