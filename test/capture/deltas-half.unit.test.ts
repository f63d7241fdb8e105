/**
 * The engine half of `deltas` alone, call by call: what becomes of the rows of a block that is hit before they have
 * arrived. Each test is a moment at which the producer, its output or its block can get lost (L3, L4, L8, L9).
 */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DeltasEngineHalf } from '../../src/capture/deltas/engine-half.ts';
import { toArray } from '../../src/capture/routed-rows.ts';
import type { ModelConfig, PrefixRows } from '../../src/contract/config.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { CaptureRequest } from '../../src/contract/request.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { BASE_ENGINE } from './scenarios.ts';

const BLOCK_SIZE = 4;
const model: ModelConfig = { ...modelPreset('tiny'), numLayers: 1, topK: 1 };

type TestRequest = { -readonly [K in keyof CaptureRequest]: CaptureRequest[K] } & { isOver: boolean };

/** A scheduler's hands: makes the calls that the scheduler would make. */
class Calls {
  readonly half: DeltasEngineHalf;
  #nextIndex = 0;
  #nextStep = 0;

  constructor(policy: PrefixRows = 'complete') {
    this.half = new DeltasEngineHalf(model, { ...BASE_ENGINE, blockSize: BLOCK_SIZE }, policy);
  }

  request(numTokens: number, routedExpertsPromptStart = 0): TestRequest {
    const index = this.#nextIndex++;
    const request = {
      index,
      requestId: `r${index}`,
      numPromptTokens: numTokens,
      numTokens,
      maxTokens: 100,
      numOutputTokens: 0,
      numComputedTokens: 0,
      blockIds: [],
      numCachedBlocks: 0,
      returnRoutedExperts: true,
      routedExpertsPromptStart,
      isOver: false,
    } as unknown as TestRequest;
    expect(this.half.wants(request)).toBe(true);
    return request;
  }

  /** How many of these cached blocks, from the front, the request may use. */
  usable(request: TestRequest, blockIds: readonly number[]): number {
    const without = blockIds.findIndex((id, i) => !this.half.hasRows(request, id, i));
    return without < 0 || !this.half.needsRows ? blockIds.length : without;
  }

  /** Admits the request to `blockIds`, of which the first `numHits` were hit. */
  admit(request: TestRequest, blockIds: readonly number[], numHits = 0): void {
    request.blockIds = blockIds;
    request.numComputedTokens = numHits * BLOCK_SIZE;
    request.numCachedBlocks = numHits;
    if (numHits > 0) this.half.onPrefixHit(request, numHits);
  }

  /** The blocks that the first `numTokens` tokens fill can be hit from here on. */
  cache(request: TestRequest, numTokens: number): void {
    const first = request.numCachedBlocks;
    request.numCachedBlocks = Math.floor(numTokens / BLOCK_SIZE);
    if (this.half.followsBlocks && request.numCachedBlocks > first) this.half.onBlocksCached(request, first);
  }

  /** Schedules `count` more tokens of each, in one step. */
  schedule(...parts: readonly (readonly [TestRequest, number])[]): ModelRunnerOutput {
    const index: number[] = [];
    const rows: number[] = [];
    const stepId = this.#nextStep++;
    for (const [request, count] of parts) {
      const start = request.numComputedTokens;
      this.cache(request, Math.min(start + count, request.numTokens));
      const from = Math.max(start, request.routedExpertsPromptStart);
      if (from < start + count) index.push(request.index, from, start + count - from);
      for (let p = from; p < start + count; p++) rows.push(rowOf(stepId, p));
      request.numComputedTokens = start + count;
    }
    this.half.onScheduled(
      { stepId } as SchedulerOutput,
      parts.map(([request]) => request),
    );
    const deltas = {
      rows: Uint8Array.from(rows),
      numRows: rows.length,
      index: Uint32Array.from(index),
      indexLength: index.length,
    };
    return { stepId, routedExpertDeltas: rows.length > 0 ? deltas : null } as ModelRunnerOutput;
  }

  /** The output arrives; those in `dropped` had it thrown away. */
  arrive(output: ModelRunnerOutput, all: readonly TestRequest[], dropped: readonly TestRequest[] = []): void {
    this.half.onStepOutput(output, (requestIndex) => {
      const request = all.find(({ index }) => index === requestIndex)!;
      return request.isOver || dropped.includes(request) ? null : request;
    });
    // The buffer is used again.
    output.routedExpertDeltas?.rows.fill(0xee);
  }

  preempt(request: TestRequest): void {
    this.half.onPreempt(request);
    request.blockIds = [];
    request.numCachedBlocks = 0;
    request.numComputedTokens = 0;
  }

  /** Ends the request; answers its rows, missing ones as −1. */
  end(request: TestRequest): number[] {
    const rows = this.half.take(request, 0, 'abort')!;
    this.half.release(request);
    request.isOver = true;
    const all = Array.from(toArray(rows, 0));
    for (const [from, to] of rows.missing) all.fill(-1, from - rows.start, to - rows.start);
    return all;
  }

  expectNothingHeld(): void {
    const { requests, bytes } = this.half.liveCounts();
    expect({ requests, bytes }).toEqual({ requests: 0, bytes: 0 });
  }
}

const rowOf = (stepId: number, position: number): number => 50 * (stepId + 1) + position;
const rowsOf = (stepId: number, from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, i) => rowOf(stepId, from + i));
const missing = (count: number): number[] => Array.from({ length: count }, () => -1);

test('hit in the very step that computes it: the rows of both arrive together', () => {
  const calls = new Calls();
  const [a, b] = [calls.request(9), calls.request(7)];
  calls.admit(a, [1, 2, 3]);
  calls.cache(a, 8);
  expect(calls.usable(b, [1])).toBe(1);
  calls.admit(b, [1, 4], 1);
  calls.arrive(calls.schedule([a, 9], [b, 3]), [a, b]);
  expect(calls.end(b)).toEqual(rowsOf(0, 0, 6));
  expect(calls.end(a)).toEqual(rowsOf(0, 0, 8));
  calls.expectNothingHeld();
  expect(calls.half.liveCounts().cachedBytes).toBe(2 * BLOCK_SIZE);
});

test('the producer is aborted before its rows arrive: they still come, to the block and to who hit it', () => {
  const calls = new Calls();
  const [a, b, c] = [calls.request(9), calls.request(6), calls.request(6)];
  calls.admit(a, [1, 2, 3]);
  const first = calls.schedule([a, 9]);
  calls.admit(b, [1, 4], 1);
  const second = calls.schedule([b, 2]);
  expect(calls.end(a)).toEqual(missing(8));
  calls.arrive(first, [a, b]);
  calls.arrive(second, [a, b]);
  expect(calls.end(b)).toEqual([...rowsOf(0, 0, 4), ...rowsOf(1, 4, 5)]);
  expect(calls.usable(c, [1])).toBe(1);
  calls.admit(c, [1, 5], 1);
  const third = calls.schedule([c, 2]);
  expect(calls.end(c)).toEqual([...rowsOf(0, 0, 4), -1]);
  calls.arrive(third, [c]);
  calls.expectNothingHeld();
});

test('an aborted producer’s user holds the rows that had come: those that come later change none of them', () => {
  const calls = new Calls();
  const a = calls.request(9);
  calls.admit(a, [1, 2, 3]);
  const first = calls.schedule([a, 2]);
  const second = calls.schedule([a, 7]);
  calls.arrive(first, [a]);
  const rows = calls.half.take(a, 0, 'abort')!;
  calls.half.release(a);
  a.isOver = true;
  const delivered = (): number[] => Array.from(rows.chunks[0]!.subarray(0, 2));
  expect([delivered(), rows.missing]).toEqual([rowsOf(0, 0, 2), [[2, 8]]]);
  calls.arrive(second, [a]);
  expect([delivered(), rows.missing]).toEqual([rowsOf(0, 0, 2), [[2, 8]]]);
  const b = calls.request(6);
  calls.admit(b, [1, 4], 1);
  calls.schedule([b, 2]);
  expect(calls.end(b)).toEqual([...rowsOf(0, 0, 2), ...rowsOf(1, 2, 4), -1]);
});

test('a request that ends before a step was scheduled for it has no rows: nothing of it attended to the blocks that it hit', () => {
  const calls = new Calls();
  const [a, b] = [calls.request(9), calls.request(6)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  calls.admit(b, [1, 4], 1);
  expect(calls.end(b)).toEqual(missing(5));
});

test('rows that are read late are those that stood at the end: what arrives later is not among them', () => {
  const calls = new Calls();
  const [a, b] = [calls.request(9), calls.request(9)];
  calls.admit(a, [1, 2, 3]);
  const first = calls.schedule([a, 2]);
  const second = calls.schedule([a, 7]);
  calls.admit(b, [1, 2, 4], 2);
  const third = calls.schedule([b, 1]);
  calls.arrive(first, [a, b]);
  const rows = [a, b].map((request) => calls.half.take(request, 0, 'abort')!);
  for (const request of [a, b]) {
    calls.half.release(request);
    request.isOver = true;
  }
  calls.arrive(second, [a, b]);
  calls.arrive(third, [a, b]);
  expect(rows.map(({ missing: gaps }) => gaps)).toEqual([[[2, 8]], [[2, 8]]]);
  expect([...rows[0]!.chunks[0]!.subarray(0, 2)]).toEqual(rowsOf(0, 0, 2));
});

test('the producer is preempted before its rows arrive, and hits its own block', () => {
  const calls = new Calls();
  const a = calls.request(6);
  calls.admit(a, [1, 2]);
  const first = calls.schedule([a, 6]);
  calls.preempt(a);
  calls.arrive(first, [a]);
  expect(calls.usable(a, [1])).toBe(1);
  calls.admit(a, [1, 3], 1);
  calls.arrive(calls.schedule([a, 2]), [a]);
  expect(calls.end(a)).toEqual([...rowsOf(0, 0, 4), ...rowsOf(1, 4, 5)]);
  calls.expectNothingHeld();
});

test('the block is freed and given away before the rows arrive: they are not taken for those of its new content', () => {
  const calls = new Calls();
  const [a, b, c] = [calls.request(5), calls.request(5), calls.request(5)];
  calls.admit(a, [1, 2]);
  const first = calls.schedule([a, 5]);
  calls.end(a);
  calls.half.onBlockEvicted(1);
  calls.admit(b, [1, 3]);
  const second = calls.schedule([b, 5]);
  calls.arrive(first, [a, b]);
  calls.admit(c, [1, 4], 1);
  const third = calls.schedule([c, 1]);
  calls.arrive(second, [a, b]);
  calls.arrive(third, [a, b, c]);
  expect(calls.end(c)).toEqual(rowsOf(1, 0, 4));
  expect(calls.end(b)).toEqual(rowsOf(1, 0, 4));
  calls.expectNothingHeld();
});

test('a step is taken back after its blocks were cached: the scheduler evicts them, and they are misses', () => {
  const calls = new Calls();
  const [a, b] = [calls.request(9), calls.request(9)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 5]), [a]);
  calls.cache(a, 9);
  expect(calls.usable(b, [1, 2])).toBe(2);
  calls.preempt(a);
  calls.half.onBlockEvicted(2);
  expect(calls.usable(b, [1, 2])).toBe(1);
  calls.end(a);
});

test('a cache reset: rows of blocks are let go, those of a dropped output are not the request’s', () => {
  const calls = new Calls();
  const [a, b] = [calls.request(9), calls.request(9)];
  calls.admit(a, [1, 2, 3]);
  const first = calls.schedule([a, 4]);
  const second = calls.schedule([a, 5]);
  calls.arrive(first, [a]);
  expect(calls.half.liveCounts().cachedBytes).toBe(BLOCK_SIZE);
  calls.preempt(a);
  calls.half.onCacheReset();
  expect(calls.half.liveCounts().cachedBytes).toBe(0);
  calls.arrive(second, [a], [a]);
  expect(calls.usable(b, [1])).toBe(0);
  expect(calls.end(a)).toEqual([...rowsOf(0, 0, 4), ...missing(4)]);
  calls.expectNothingHeld();
});

test('a dropped output is others’: who hit its blocks and keeps its own output gets the rows', () => {
  const calls = new Calls();
  const [a, b] = [calls.request(9), calls.request(6)];
  calls.admit(a, [1, 2, 3]);
  const first = calls.schedule([a, 9]);
  calls.admit(b, [1, 4], 1);
  const second = calls.schedule([b, 2]);
  calls.preempt(b);
  calls.preempt(a);
  calls.half.onCacheReset();
  calls.arrive(first, [a, b], [a]);
  calls.arrive(second, [a, b], [a]);
  expect(calls.end(b)).toEqual([...rowsOf(0, 0, 4), ...rowsOf(1, 4, 5)]);
  expect(calls.end(a)).toEqual(missing(8));
  calls.expectNothingHeld();
});

test('a dropped output that arrives after the request was admitted again is not its own', () => {
  const calls = new Calls();
  const a = calls.request(6);
  calls.admit(a, [1, 2]);
  const first = calls.schedule([a, 6]);
  calls.preempt(a);
  calls.half.onCacheReset();
  calls.admit(a, [3, 4]);
  const second = calls.schedule([a, 2]);
  calls.arrive(first, [a], [a]);
  calls.arrive(second, [a]);
  expect(calls.end(a)).toEqual([...rowsOf(1, 0, 2), ...missing(3)]);
});

test('a dropped first output gives its request nothing: no rows of its own, none of blocks that it hit', () => {
  const calls = new Calls();
  const [a, b] = [calls.request(9), calls.request(6)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  calls.admit(b, [1, 4], 1);
  const first = calls.schedule([b, 2]);
  calls.preempt(b);
  calls.half.onCacheReset();
  calls.arrive(first, [a, b], [b]);
  expect(calls.end(b)).toEqual(missing(5));
  expect(calls.end(a)).toEqual(rowsOf(0, 0, 8));
  calls.expectNothingHeld();
});

test('rows before the producer’s prompt start are never computed: its first block is a miss to who wants them', () => {
  const calls = new Calls();
  const a = calls.request(13, 6);
  calls.admit(a, [1, 2, 3, 4]);
  calls.arrive(calls.schedule([a, 13]), [a]);
  const usable = (promptStart: number): number => calls.usable(calls.request(13, promptStart), [1, 2, 3]);
  expect([0, 3, 4, 5].map(usable)).toEqual([0, 0, 1, 1]);
  expect([6, 7, 8, 12].map(usable)).toEqual([3, 3, 3, 3]);
  const b = calls.request(13, 7);
  calls.admit(b, [1, 2, 3, 5], 3);
  calls.arrive(calls.schedule([b, 1]), [a, b]);
  expect(calls.end(b)).toEqual(rowsOf(0, 7, 12));
  expect(calls.half.liveCounts().cachedBytes).toBe(2 * BLOCK_SIZE);
});

test('share: a cached block without rows is hit, and its rows are missing', () => {
  const calls = new Calls('share');
  const [a, b] = [calls.request(9, 4), calls.request(9)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  expect(calls.usable(b, [1, 2])).toBe(2);
  calls.admit(b, [1, 2, 4], 2);
  calls.arrive(calls.schedule([b, 1]), [a, b]);
  expect(calls.end(b)).toEqual([...missing(4), ...rowsOf(0, 4, 8)]);
});

test('recompute: nothing is kept, every cached block is a miss; computed-only: every one is a hit', () => {
  for (const [policy, usable] of [
    ['recompute', 0],
    ['computed-only', 2],
  ] as const) {
    const calls = new Calls(policy);
    const [a, b] = [calls.request(9), calls.request(9)];
    calls.admit(a, [1, 2, 3]);
    calls.arrive(calls.schedule([a, 9]), [a]);
    expect(calls.usable(b, [1, 2])).toBe(usable);
    calls.end(a);
    expect(calls.half.liveCounts()).toEqual({ requests: 0, bytes: 0, cachedBytes: 0 });
  }
});

test('two requests and their users hold the same memory, not a copy each', () => {
  const calls = new Calls();
  const [a, b] = [calls.request(6), calls.request(6)];
  calls.admit(a, [1, 2]);
  calls.arrive(calls.schedule([a, 6]), [a]);
  calls.admit(b, [1, 3], 1);
  calls.arrive(calls.schedule([b, 2]), [a, b]);
  const chunks = [a, b].map((request) => calls.half.take(request, 0, 'abort')!.chunks);
  const memory = chunks.map((each) => each.map((chunk) => chunk!.buffer));
  expect(memory[0]![0]).toBe(memory[1]![0]);
  expect(memory[0]![1]).not.toBe(memory[1]![1]);
});

test('what is counted: memory of cached blocks once, and apart from that of requests', () => {
  const calls = new Calls();
  const [a, b] = [calls.request(10), calls.request(10)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  expect(calls.half.liveCounts()).toEqual({ requests: 1, bytes: BLOCK_SIZE, cachedBytes: 2 * BLOCK_SIZE });
  calls.admit(b, [1, 2, 4], 2);
  expect(calls.half.liveCounts()).toEqual({ requests: 2, bytes: BLOCK_SIZE, cachedBytes: 2 * BLOCK_SIZE });
  // The one block that is still cached gets memory of its own; the requests hold what they held.
  calls.half.onBlockEvicted(2);
  expect(calls.half.liveCounts()).toEqual({ requests: 2, bytes: 3 * BLOCK_SIZE, cachedBytes: BLOCK_SIZE });
});

test('the workers die: steps in flight are let go with their rows', () => {
  const calls = new Calls();
  const a = calls.request(6);
  calls.admit(a, [1, 2]);
  calls.schedule([a, 3]);
  const second = calls.schedule([a, 3]);
  calls.preempt(a);
  calls.half.onCacheReset();
  calls.half.onStepsLost();
  calls.end(a);
  calls.expectNothingHeld();
  expect(() => calls.arrive(second, [a])).toThrow(/the output of step 1 came in place of step undefined/);
});

/** The rows of `[start, start + values.length)` as another engine hands them over; negative = missing. */
function handedOver(start: number, values: readonly number[], rowsPerChunk = 3): RoutedRows {
  const end = start + values.length;
  const chunks: (Uint8Array | null)[] = [];
  for (let from = 0; from < end; from += rowsPerChunk) {
    const chunk = Array.from({ length: rowsPerChunk }, (_, i) => values[from + i - start] ?? -1);
    chunks.push(chunk.every((value) => value < 0) ? null : Uint8Array.from(chunk));
  }
  const missingRanges = values.flatMap((value, i) => (value < 0 ? [[start + i, start + i + 1] as const] : []));
  return { ...SHAPE, start, count: values.length, rowsPerChunk, chunks, missing: missingRanges };
}

const SHAPE = { numLayers: 1, topK: 1, dtype: 'uint8' } as const;

/** A request of 13 tokens to whose blocks 1, 2 and 3 the KV of `[0, 11)` came. */
function load(rows: RoutedRows | null, promptStart = 0): { calls: Calls; a: TestRequest } {
  const calls = new Calls('share');
  const a = calls.request(13, promptStart);
  calls.admit(a, [1, 2, 3, 4]);
  a.numCachedBlocks = 2;
  calls.half.onExternalKv(a, 0, 11, rows);
  a.numComputedTokens = 11;
  calls.arrive(calls.schedule([a, 2]), [a]);
  return { calls, a };
}

describe('KV from elsewhere', () => {
  const own = rowsOf(0, 11, 12);

  test('its rows are the request’s, and go to who hits its blocks', () => {
    const { calls, a } = load(handedOver(0, [9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8]));
    expect(calls.end(a)).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8, ...own]);
    const b = calls.request(9);
    calls.admit(b, [1, 2, 5], 2);
    calls.arrive(calls.schedule([b, 1]), [b]);
    expect(calls.end(b)).toEqual([9, 8, 7, 6, 5, 4, 3, 2]);
    calls.expectNothingHeld();
  });

  test('rows that did not come are missing, those before them in their block too; none stands for another', () => {
    const { calls, a } = load(handedOver(1, [8, 7, 6, 5, 4, -1, 2, 1, -1]));
    expect(calls.end(a)).toEqual([-1, 8, 7, 6, -1, -1, -1, 2, ...missing(3), ...own]);
    expect(calls.usable(calls.request(9, 1), [1])).toBe(1);
  });

  test('no rows: all of them are missing, and the request’s own follow', () => {
    const { calls, a } = load(null);
    expect(calls.end(a)).toEqual([...missing(11), ...own]);
    expect(calls.half.liveCounts().cachedBytes).toBe(BLOCK_SIZE);
  });

  test('given back before a pass was to read it: none of its rows is the request’s, and whoever hits its blocks has them', () => {
    const calls = new Calls();
    const a = calls.request(12);
    calls.admit(a, [1, 2, 3]);
    a.numCachedBlocks = 2;
    calls.half.onExternalKv(a, 0, 11, handedOver(0, [9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8]));
    calls.preempt(a);
    expect(calls.end(a)).toEqual(missing(11));
    const b = calls.request(9);
    calls.admit(b, [1, 2, 5], 2);
    calls.arrive(calls.schedule([b, 1]), [b]);
    expect(calls.end(b)).toEqual([9, 8, 7, 6, 5, 4, 3, 2]);
  });

  test('lost after a pass has read it, and computed again up to the middle of a block: rows of both lives, and the gap between', () => {
    const { calls, a } = load(null);
    calls.preempt(a);
    calls.admit(a, [4, 5, 6, 7]);
    const again = calls.schedule([a, 9]);
    calls.arrive(again, [a]);
    expect(calls.end(a)).toEqual([...rowsOf(again.stepId, 0, 9), ...missing(2), ...own]);
  });

  test('rows before the prompt start are not looked at', () => {
    const { calls, a } = load(handedOver(4, [5, 4, 3, 2, 1, 9, 8]), 6);
    expect(calls.end(a)).toEqual([3, 2, 1, 9, 8, ...own]);
  });

  test('any rows, any gaps: every row is the one handed over, or missing', () => {
    const values = fc.array(fc.integer({ min: -1, max: 40 }), { minLength: 1, maxLength: 14 });
    fc.assert(
      fc.property(
        fc.nat(6),
        values,
        fc.nat(11),
        fc.integer({ min: 1, max: 5 }),
        (start, all, promptStart, perChunk) => {
          const { calls, a } = load(handedOver(start, all, perChunk), promptStart);
          const rows = calls.end(a);
          for (let p = promptStart; p < 11; p++) {
            const handed = all[p - start] ?? -1;
            const got = rows[p - promptStart]!;
            if (got !== -1) expect(got).toBe(handed);
            // A row is given up only with a gap behind it in its block.
            const end = Math.min(11, (Math.floor(p / BLOCK_SIZE) + 1) * BLOCK_SIZE);
            const isWhole = Array.from({ length: end - p }, (_, i) => all[p + i - start] ?? -1).every(
              (value) => value >= 0,
            );
            if (isWhole) expect(got).toBe(handed);
          }
          expect(rows.slice(11 - promptStart)).toEqual(own);
        },
      ),
      { numRuns: 300 },
    );
  });
});
