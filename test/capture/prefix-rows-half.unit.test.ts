/**
 * The engine half of `deltas` with rows of prefix hits, call by call: what becomes of the rows of a block that is hit
 * before they have arrived. Each test is a moment at which the producer, its output or its block can get lost (L3, L4,
 * L8, L9).
 */

import { expect, test } from 'vitest';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import { BLOCK_SIZE, missing, rowsOf, SchedulerCalls } from './scheduler-calls.ts';

test('hit in the very step that computes it: the rows of both arrive together', () => {
  const calls = new SchedulerCalls();
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

test('the producer is aborted before its rows arrive: they come to the block and to a request that hit it', () => {
  const calls = new SchedulerCalls();
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
  const calls = new SchedulerCalls();
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

test('a request that ends before a step was scheduled for it has no rows: it attended to no block that it hit', () => {
  const calls = new SchedulerCalls();
  const [a, b] = [calls.request(9), calls.request(6)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  calls.admit(b, [1, 4], 1);
  expect(calls.end(b)).toEqual(missing(5));
});

test('rows that are read late are those that stood at the end: what arrives later is not among them', () => {
  const calls = new SchedulerCalls();
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
  const calls = new SchedulerCalls();
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

test('the block is given away before the rows arrive: they are not taken for those of its new content', () => {
  const calls = new SchedulerCalls();
  const [a, b, c] = [calls.request(5), calls.request(5), calls.request(5)];
  calls.admit(a, [1, 2]);
  const first = calls.schedule([a, 5]);
  calls.end(a);
  calls.half.onBlockEvicted!(1);
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
  const calls = new SchedulerCalls();
  const [a, b] = [calls.request(9), calls.request(9)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 5]), [a]);
  calls.cache(a, 9);
  expect(calls.usable(b, [1, 2])).toBe(2);
  calls.preempt(a);
  calls.half.onBlockEvicted!(2);
  expect(calls.usable(b, [1, 2])).toBe(1);
  calls.end(a);
});

test('a cache reset: rows of blocks are let go, those of a dropped output are not the request’s', () => {
  const calls = new SchedulerCalls();
  const [a, b] = [calls.request(9), calls.request(9)];
  calls.admit(a, [1, 2, 3]);
  const first = calls.schedule([a, 4]);
  const second = calls.schedule([a, 5]);
  calls.arrive(first, [a]);
  expect(calls.half.liveCounts().cachedBytes).toBe(BLOCK_SIZE);
  calls.preempt(a);
  calls.half.onCacheReset!();
  expect(calls.half.liveCounts().cachedBytes).toBe(0);
  calls.arrive(second, [a], [a]);
  expect(calls.usable(b, [1])).toBe(0);
  expect(calls.end(a)).toEqual([...rowsOf(0, 0, 4), ...missing(4)]);
  calls.expectNothingHeld();
});

test('a dropped output is not its request’s: another that hit its blocks and keeps its own output has the rows', () => {
  const calls = new SchedulerCalls();
  const [a, b] = [calls.request(9), calls.request(6)];
  calls.admit(a, [1, 2, 3]);
  const first = calls.schedule([a, 9]);
  calls.admit(b, [1, 4], 1);
  const second = calls.schedule([b, 2]);
  calls.preempt(b);
  calls.preempt(a);
  calls.half.onCacheReset!();
  calls.arrive(first, [a, b], [a]);
  calls.arrive(second, [a, b], [a]);
  expect(calls.end(b)).toEqual([...rowsOf(0, 0, 4), ...rowsOf(1, 4, 5)]);
  expect(calls.end(a)).toEqual(missing(8));
  calls.expectNothingHeld();
});

test('a dropped output that arrives after the request was admitted again is not its own', () => {
  const calls = new SchedulerCalls();
  const a = calls.request(6);
  calls.admit(a, [1, 2]);
  const first = calls.schedule([a, 6]);
  calls.preempt(a);
  calls.half.onCacheReset!();
  calls.admit(a, [3, 4]);
  const second = calls.schedule([a, 2]);
  calls.arrive(first, [a], [a]);
  calls.arrive(second, [a]);
  expect(calls.end(a)).toEqual([...rowsOf(1, 0, 2), ...missing(3)]);
});

test('preempted again while dropped outputs are on their way: it hits a block of the admission between', () => {
  const calls = new SchedulerCalls();
  const a = calls.request(6);
  calls.admit(a, [1, 2]);
  const first = calls.schedule([a, 6]);
  calls.preempt(a);
  calls.half.onCacheReset!();
  calls.admit(a, [3, 4]);
  const second = calls.schedule([a, 6]);
  calls.preempt(a);
  calls.admit(a, [3, 5], 1);
  const third = calls.schedule([a, 2]);
  calls.arrive(first, [a], [a]);
  calls.arrive(second, [a], [a]);
  calls.arrive(third, [a]);
  expect(calls.end(a)).toEqual([...rowsOf(1, 0, 4), ...rowsOf(2, 4, 5)]);
  calls.expectNothingHeld();
});

test('a dropped first output gives its request nothing: no rows of its own, none of blocks that it hit', () => {
  const calls = new SchedulerCalls();
  const [a, b] = [calls.request(9), calls.request(6)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  calls.admit(b, [1, 4], 1);
  const first = calls.schedule([b, 2]);
  calls.preempt(b);
  calls.half.onCacheReset!();
  calls.arrive(first, [a, b], [b]);
  expect(calls.end(b)).toEqual(missing(5));
  expect(calls.end(a)).toEqual(rowsOf(0, 0, 8));
  calls.expectNothingHeld();
});

test('rows before the producer’s prompt start are never computed: its first block is a miss if they are wanted', () => {
  const calls = new SchedulerCalls();
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
  const calls = new SchedulerCalls('share');
  const [a, b] = [calls.request(9, 4), calls.request(9)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  expect(calls.usable(b, [1, 2])).toBe(2);
  calls.admit(b, [1, 2, 4], 2);
  calls.arrive(calls.schedule([b, 1]), [a, b]);
  expect(calls.end(b)).toEqual([...missing(4), ...rowsOf(0, 4, 8)]);
});

test('recompute: nothing is kept, and every cached block is a miss', () => {
  const calls = new SchedulerCalls('recompute');
  const [a, b] = [calls.request(9), calls.request(9)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  expect(calls.usable(b, [1, 2])).toBe(0);
  calls.end(a);
  expect(calls.half.liveCounts()).toEqual({ requests: 0, bytes: 0, cachedBytes: 0 });
});

test('two requests and their users hold the same memory, not a copy each', () => {
  const calls = new SchedulerCalls();
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
  const calls = new SchedulerCalls();
  const [a, b] = [calls.request(10), calls.request(10)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  // The run of the third block has room for a fourth.
  expect(calls.half.liveCounts()).toEqual({ requests: 1, bytes: 2 * BLOCK_SIZE, cachedBytes: 2 * BLOCK_SIZE });
  calls.admit(b, [1, 2, 4], 2);
  expect(calls.half.liveCounts()).toEqual({ requests: 2, bytes: 2 * BLOCK_SIZE, cachedBytes: 2 * BLOCK_SIZE });
  // The one block that is still cached gets memory of its own; the requests hold what they held.
  calls.half.onBlockEvicted!(2);
  expect(calls.half.liveCounts()).toEqual({ requests: 2, bytes: 4 * BLOCK_SIZE, cachedBytes: BLOCK_SIZE });
});

test('the workers die: steps in flight are let go with their rows', () => {
  const calls = new SchedulerCalls();
  const a = calls.request(6);
  calls.admit(a, [1, 2]);
  calls.schedule([a, 3]);
  const second = calls.schedule([a, 3]);
  calls.preempt(a);
  calls.half.onCacheReset!();
  calls.half.onStepsLost!();
  calls.end(a);
  calls.expectNothingHeld();
  expect(() => calls.arrive(second, [a])).toThrow(/the output of step 1 came in place of step undefined/);
});

test('a cache reset in every step: tables of steps that have come are let go, whatever is still in flight', () => {
  const calls = new SchedulerCalls();
  const a = calls.request(6);
  const scheduleAndLose = (): ModelRunnerOutput => {
    calls.admit(a, [1, 2]);
    const output = calls.schedule([a, 6]);
    calls.preempt(a);
    calls.half.onCacheReset!();
    return output;
  };
  let inFlight = scheduleAndLose();
  const held: number[] = [];
  for (let i = 0; i < 4; i++) {
    const next = scheduleAndLose();
    calls.arrive(inFlight, [a], [a]);
    held.push(calls.half.liveCounts().bytes);
    inFlight = next;
  }
  // Two blocks of one request.
  expect(held).toEqual(held.map(() => 2 * BLOCK_SIZE));
});
