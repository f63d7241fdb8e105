// KV from elsewhere: a request waits for it without holding anybody up, its blocks are the load's until that has ended,
// what is handed over stays until it is released, and no order of events leaves a block behind (L7).

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { EngineConfig } from '../../src/contract/config.ts';
import type { EngineCoreOutput } from '../../src/contract/engine-core-output.ts';
import type { ExternalKv, KvConnector, KvLoad } from '../../src/contract/kv-connector.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { CaptureRequest, EngineRequest } from '../../src/contract/request.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';

const config: EngineConfig = {
  blockSize: 4,
  numBlocks: 21,
  maxNumSeqs: 8,
  maxNumBatchedTokens: 32,
  maxModelLen: 64,
  policy: 'fcfs',
  asyncScheduling: false,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: true,
  watermark: 0,
  numSpeculativeTokens: 0,
};

/** Says yes to what it is told to, and remembers what it was asked. */
class ScriptedConnector implements KvConnector {
  readonly external: Map<string, number> = new Map();
  readonly keeps: Set<string> = new Set();
  readonly loads: KvLoad[] = [];
  readonly kept: number[] = [];
  numLosses = 0;

  externalKv(request: CaptureRequest): ExternalKv | null {
    const numTokens = this.external.get(request.requestId);
    return numTokens === undefined ? null : { numTokens, hasRows: false };
  }

  startLoad(load: KvLoad): void {
    this.loads.push(load);
  }

  keepsBlocks(request: CaptureRequest): boolean {
    if (!this.keeps.has(request.requestId)) return false;
    this.kept.push(request.index);
    return true;
  }

  onWorkersLost(): void {
    this.numLosses += 1;
    this.loads.length = 0;
    this.kept.length = 0;
  }
}

const makeRequest = (requestId: string, promptLength: number, maxTokens: number, seed: number = 0): EngineRequest => ({
  requestId,
  promptTokenIds: Uint32Array.from({ length: promptLength }, (_, i) => seed * 100 + i),
  sampling: {
    maxTokens,
    minTokens: 0,
    eosTokenId: null,
    stopTokenIds: [],
    returnRoutedExperts: false,
    routedExpertsPromptStart: 0,
  },
  priority: 0,
  arrivalTime: 0,
  cacheSalt: null,
});

/** A token for every request that samples. */
function answerTo(step: SchedulerOutput, known: Map<number, number>): ModelRunnerOutput {
  const n = step.numRequests;
  for (const each of step.newRequests) known.set(each.index, each.numTokens);
  const sampled: number[] = [];
  const sampledOffsets = new Uint32Array(n + 1);
  for (let i = 0; i < n; i += 1) {
    const index = step.requestIndices[i]!;
    if (step.numComputedTokens[i]! + step.numScheduledTokens[i]! >= known.get(index)!) {
      sampled.push(7);
      known.set(index, known.get(index)! + 1);
    }
    sampledOffsets[i + 1] = sampled.length;
  }
  return {
    stepId: step.stepId,
    numRequests: n,
    requestIndices: step.requestIndices.slice(0, n),
    sampledTokenIds: Uint32Array.from(sampled),
    sampledOffsets,
    drafts: null,
    routedExpertDeltas: null,
  };
}

class Fixture {
  readonly connector = new ScriptedConnector();
  readonly engine: EngineCore;
  readonly known: Map<number, number> = new Map();
  readonly outputs: EngineCoreOutput[] = [];

  constructor(engine: EngineConfig = config) {
    this.engine = new EngineCore(engine, null, { connector: this.connector });
  }

  /** One step; `null` if there was none. A copy of what it scheduled. */
  step(): { requests: number[]; computed: number[]; scheduled: number[] } | null {
    const step = this.engine.beginStep();
    if (step === null) return null;
    const n = step.numRequests;
    const seen = {
      requests: [...step.requestIndices.subarray(0, n)],
      computed: [...step.numComputedTokens.subarray(0, n)],
      scheduled: [...step.numScheduledTokens.subarray(0, n)],
    };
    this.outputs.push(...this.engine.finishStep(answerTo(step, this.known)));
    this.engine.checkIntegrity();
    return seen;
  }

  drain(): void {
    for (let steps = 0; this.step() !== null; steps += 1) expect(steps).toBeLessThan(1000);
  }
}

describe('a load', () => {
  test('waits without a step, then computes the last prompt token only: a full hit', () => {
    const f = new Fixture();
    f.connector.external.set('a', 10);
    f.engine.addRequest(makeRequest('a', 10, 2));
    expect(f.step()).toBeNull();
    expect(f.connector.loads).toMatchObject([{ from: 0, to: 10, blockIds: [1, 2, 3] }]);
    expect(f.engine.stats()).toMatchObject({ numWaitingForRemoteKvs: 1, numRunning: 0, numWaiting: 0 });
    expect(f.engine.isIdle).toBe(false);
    f.engine.finishLoad(f.connector.loads[0]!.loadId, { kind: 'loaded', rows: null });
    f.engine.checkIntegrity();
    expect(f.step()).toEqual({ requests: [0], computed: [9], scheduled: [1] });
    f.drain();
    expect(f.outputs.flatMap((output) => output.newTokenIds)).toEqual([7, 7]);
    expect(f.engine.stats()).toMatchObject({ numUsedBlocks: 0, numExternalTokens: 10 });
    expect(f.engine.isIdle).toBe(true);
  });

  test('begins behind what is cached here, and its blocks can be hit once it has come, not before', () => {
    const f = new Fixture();
    f.engine.addRequest(makeRequest('warm', 8, 1));
    f.drain();
    f.connector.external.set('a', 19);
    f.engine.addRequest(makeRequest('a', 20, 1));
    f.step();
    expect(f.connector.loads).toMatchObject([{ from: 8, to: 19 }]);
    f.engine.addRequest(makeRequest('b', 20, 1));
    expect(f.step()).toMatchObject({ computed: [8], scheduled: [12] });
    f.engine.finishLoad(f.connector.loads[0]!.loadId, { kind: 'loaded', rows: null });
    expect(f.step()).toMatchObject({ computed: [19], scheduled: [1] });
  });

  test('others run while it is under way', () => {
    const f = new Fixture();
    f.connector.external.set('a', 10);
    f.engine.addRequest(makeRequest('a', 12, 2));
    f.engine.addRequest(makeRequest('b', 6, 3, 1));
    f.drain();
    expect(f.outputs.at(-1)).toMatchObject({ requestId: 'b', finishReason: 'length' });
  });

  test('that fails is recomputed, or ends its request alone', () => {
    const f = new Fixture();
    f.connector.external.set('a', 10).set('b', 10);
    f.engine.addRequest(makeRequest('a', 10, 1));
    f.engine.addRequest(makeRequest('b', 10, 1, 1));
    f.step();
    const [a, b] = f.connector.loads;
    expect(f.engine.finishLoad(a!.loadId, { kind: 'recompute' })).toEqual([]);
    expect(f.engine.finishLoad(b!.loadId, { kind: 'fail' })).toMatchObject([{ requestId: 'b', finishReason: 'error' }]);
    expect(f.step()).toMatchObject({ computed: [0], scheduled: [10] });
    expect(f.engine.stats()).toMatchObject({ numUsedBlocks: 0, numExternalTokens: 0 });
  });

  test('of an aborted request keeps its blocks until it has ended', () => {
    const f = new Fixture();
    f.connector.external.set('a', 10);
    f.engine.addRequest(makeRequest('a', 10, 1));
    f.step();
    expect(f.engine.abort(['a'])).toMatchObject([{ finishReason: 'abort' }]);
    f.engine.checkIntegrity();
    expect(f.engine.stats()).toMatchObject({ numUsedBlocks: 3, numWaitingForRemoteKvs: 0 });
    expect(f.engine.isIdle).toBe(false);
    expect(f.engine.finishLoad(f.connector.loads[0]!.loadId, { kind: 'loaded', rows: null })).toEqual([]);
    expect(f.engine.stats().numUsedBlocks).toBe(0);
    f.drain();
    expect(f.engine.isIdle).toBe(true);
  });

  test('that did not begin, or ended already, is refused', () => {
    const f = new Fixture();
    expect(() => f.engine.finishLoad(3, { kind: 'recompute' })).toThrow(/load 3 ended, but is not in flight/);
  });

  test('two loaded requests that need each other’s blocks do not wait for ever', () => {
    const f = new Fixture();
    // 20 blocks: each has 9 loaded and needs 12.
    f.connector.external.set('a', 36).set('b', 36);
    f.engine.addRequest(makeRequest('a', 37, 11));
    f.engine.addRequest(makeRequest('b', 37, 11, 1));
    f.step();
    for (const { loadId } of f.connector.loads) f.engine.finishLoad(loadId, { kind: 'loaded', rows: null });
    f.drain();
    expect(f.outputs.filter((output) => output.finishReason === 'length').length).toBe(2);
    expect(f.engine.stats().numUsedBlocks).toBe(0);
  });

  test('a request that runs alone takes the blocks of a loaded one rather than preempt itself forever', () => {
    // One sequence at a time: `b` holds 10 of 20 blocks and has no place to run, `a` grows to 13.
    const f = new Fixture({ ...config, maxNumSeqs: 1, reserveFullIsl: false });
    f.connector.external.set('b', 40);
    f.engine.addRequest(makeRequest('b', 41, 2, 1));
    f.step();
    f.engine.addRequest(makeRequest('a', 8, 44));
    f.step();
    f.engine.finishLoad(f.connector.loads[0]!.loadId, { kind: 'recompute' });
    f.drain();
    expect(f.outputs.filter((output) => output.finishReason === 'length').map(({ requestId }) => requestId)).toEqual([
      'a',
      'b',
    ]);
    expect(f.engine.stats()).toMatchObject({ numUsedBlocks: 0, numPreemptions: 0 });
  });
});

describe('blocks kept for others', () => {
  test('stay in use until they are released', () => {
    const f = new Fixture();
    f.connector.keeps.add('p');
    f.engine.addRequest(makeRequest('p', 10, 1));
    f.drain();
    expect(f.engine.stats()).toMatchObject({ numUsedBlocks: 3, numKeptBlocks: 3, numRunning: 0 });
    expect(f.engine.isIdle).toBe(true);
    f.engine.releaseBlocks(f.connector.kept[0]!);
    f.engine.releaseBlocks(f.connector.kept[0]!);
    f.engine.checkIntegrity();
    expect(f.engine.stats()).toMatchObject({ numUsedBlocks: 0, numKeptBlocks: 0 });
  });

  test('a request that runs alone and outgrows the rest of the pool waits for them after one preemption', () => {
    const f = new Fixture({ ...config, numBlocks: 6, maxNumBatchedTokens: 8, reserveFullIsl: false });
    f.connector.keeps.add('p');
    f.engine.addRequest(makeRequest('p', 10, 1));
    f.drain();
    f.engine.addRequest(makeRequest('a', 12, 1, 1));
    expect(f.step()).toMatchObject({ scheduled: [8] });
    expect(f.step()).toMatchObject({ requests: [] });
    expect(f.step()).toBeNull();
    expect(f.engine.stats()).toMatchObject({ numWaiting: 1, numPreemptions: 1, numFreeBlocks: 2 });
    f.engine.releaseBlocks(f.connector.kept[0]!);
    f.drain();
    expect(f.outputs.at(-1)).toMatchObject({ requestId: 'a', finishReason: 'length' });
    expect(f.engine.stats().numPreemptions).toBe(1);
  });

  test('an aborted request keeps none', () => {
    const f = new Fixture();
    f.connector.keeps.add('p');
    f.engine.addRequest(makeRequest('p', 10, 5));
    f.step();
    f.engine.abort(['p']);
    expect(f.engine.stats().numKeptBlocks).toBe(0);
  });
});

describe('a cache reset that preempts', () => {
  test('does nothing at all while a load is under way, and succeeds when it has ended', () => {
    const f = new Fixture();
    f.connector.external.set('a', 10);
    f.engine.addRequest(makeRequest('a', 10, 2));
    f.engine.addRequest(makeRequest('b', 6, 5, 1));
    f.step();
    const before = f.engine.stats();
    expect(before).toMatchObject({ numWaitingForRemoteKvs: 1, numRunning: 1 });
    expect(f.engine.resetPrefixCache({ resetRunning: true })).toBe(false);
    expect(f.engine.stats()).toEqual(before);
    expect(f.step()).toMatchObject({ computed: [6], scheduled: [1] });
    f.engine.finishLoad(f.connector.loads[0]!.loadId, { kind: 'loaded', rows: null });
    expect(f.engine.resetPrefixCache({ resetRunning: true })).toBe(true);
    f.engine.checkIntegrity();
    expect(f.engine.stats()).toMatchObject({ numUsedBlocks: 0, numCachedBlocks: 0, numPreemptions: 1, numWaiting: 2 });
    // What was loaded before the reset is not used behind it.
    f.known.clear();
    expect(f.step()!.computed).toEqual([0, 0]);
    f.drain();
    expect(f.outputs.filter((output) => output.finishReason === 'length').length).toBe(2);
  });

  test('does nothing at all while blocks are kept for others, or a load of an aborted request is under way', () => {
    const f = new Fixture();
    f.connector.keeps.add('p');
    f.engine.addRequest(makeRequest('p', 10, 1, 5));
    f.drain();
    f.connector.external.set('a', 10);
    f.engine.addRequest(makeRequest('a', 10, 2));
    f.engine.addRequest(makeRequest('b', 6, 5, 1));
    f.step();
    f.engine.abort(['a']);
    expect(f.engine.resetPrefixCache({ resetRunning: true })).toBe(false);
    f.engine.releaseBlocks(f.connector.kept[0]!);
    expect(f.engine.resetPrefixCache({ resetRunning: true })).toBe(false);
    expect(f.engine.stats()).toMatchObject({ numRunning: 1, numPreemptions: 0 });
    f.engine.finishLoad(f.connector.loads[0]!.loadId, { kind: 'recompute' });
    expect(f.engine.resetPrefixCache({ resetRunning: true })).toBe(true);
    expect(f.engine.stats()).toMatchObject({ numRunning: 0, numPreemptions: 1, numUsedBlocks: 0 });
  });
});

test('lost workers void loads and kept blocks; who waited computes', () => {
  const f = new Fixture();
  f.connector.keeps.add('p');
  f.engine.addRequest(makeRequest('p', 10, 1, 5));
  f.drain();
  f.connector.external.set('a', 10).set('b', 10).set('c', 10);
  f.engine.addRequest(makeRequest('a', 12, 1));
  f.engine.addRequest(makeRequest('b', 12, 1, 1));
  f.engine.addRequest(makeRequest('c', 12, 1, 2));
  f.step();
  f.engine.finishLoad(f.connector.loads[1]!.loadId, { kind: 'loaded', rows: null });
  f.engine.abort(['c']);
  f.engine.onWorkersLost();
  f.engine.checkIntegrity();
  expect(f.connector.numLosses).toBe(1);
  expect(f.engine.stats()).toMatchObject({ numUsedBlocks: 0, numKeptBlocks: 0, numWaitingForRemoteKvs: 0 });
  f.known.clear();
  expect(f.step()!.computed).toEqual([0, 0]);
  f.drain();
  expect(f.outputs.filter((output) => output.finishReason === 'length').length).toBe(3);
});

test('any order of arrivals, steps, ends of loads, aborts, releases and losses leaves nothing behind', () => {
  const event = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('add' as const),
        length: fc.integer({ min: 1, max: 40 }),
        external: fc.nat(45),
        keeps: fc.boolean(),
        seed: fc.nat(3),
      }),
    },
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('step' as const) }) },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('endLoad' as const),
        pick: fc.nat(),
        outcome: fc.constantFrom('loaded' as const, 'recompute' as const, 'fail' as const),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('abort' as const), pick: fc.nat() }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('release' as const), pick: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('lose' as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('reset' as const), preempts: fc.boolean() }) },
  );
  const run = fc.property(fc.array(event, { maxLength: 60 }), (events) => {
    const f = new Fixture();
    let numAdded = 0;
    const endLoad = (at: number, kind: 'loaded' | 'recompute' | 'fail'): void => {
      const [load] = f.connector.loads.splice(at, 1);
      f.outputs.push(...f.engine.finishLoad(load!.loadId, kind === 'loaded' ? { kind, rows: null } : { kind }));
    };
    for (const each of events) {
      if (each.kind === 'add') {
        const id = `r${numAdded++}`;
        if (each.external > 0) f.connector.external.set(id, each.external);
        if (each.keeps) f.connector.keeps.add(id);
        f.engine.addRequest(makeRequest(id, each.length, 1 + (each.length % 5), each.seed));
      } else if (each.kind === 'step') f.step();
      else if (each.kind === 'endLoad' && f.connector.loads.length > 0)
        endLoad(each.pick % f.connector.loads.length, each.outcome);
      else if (each.kind === 'abort' && numAdded > 0) f.outputs.push(...f.engine.abort([`r${each.pick % numAdded}`]));
      else if (each.kind === 'release' && f.connector.kept.length > 0) {
        f.engine.releaseBlocks(f.connector.kept.splice(each.pick % f.connector.kept.length, 1)[0]!);
      } else if (each.kind === 'lose') f.engine.onWorkersLost();
      else if (each.kind === 'reset') {
        const before = f.engine.stats();
        const isReset = f.engine.resetPrefixCache({ resetRunning: each.preempts });
        if (!isReset) expect(f.engine.stats()).toEqual(before);
        else expect(f.engine.stats()).toMatchObject({ numUsedBlocks: 0, numCachedBlocks: 0, numRunning: 0 });
      }
      f.engine.checkIntegrity();
    }
    for (let rounds = 0; !f.engine.isIdle; rounds += 1) {
      expect(rounds).toBeLessThan(2000);
      while (f.connector.loads.length > 0) endLoad(0, 'loaded');
      for (const index of f.connector.kept.splice(0)) f.engine.releaseBlocks(index);
      f.step();
    }
    for (const index of f.connector.kept.splice(0)) f.engine.releaseBlocks(index);
    f.engine.checkIntegrity();
    expect(f.engine.stats()).toMatchObject({ numUsedBlocks: 0, numKeptBlocks: 0, numRunning: 0, numWaiting: 0 });
    expect(f.outputs.filter((output) => output.finishReason !== null).length).toBe(numAdded);
  });
  fc.assert(run, { numRuns: 500 });
});
