/**
 * The engine half of the RFC, policy `computed-only`, call by call: rows are appended to their request, overlaid by
 * position, joined at its end, and missing where the request did not compute the token (L1–L4, L7, L9).
 */

import { expect, test } from 'vitest';
import { DeltasEngineHalf } from '../../src/capture/deltas/engine-half.ts';
import { routedRows } from '../../src/capture/routed-rows.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import { missing, model, rowsOf, SchedulerCalls } from './scheduler-calls.ts';

test('rows of several steps and requests: each goes to its request, in order', () => {
  const calls = new SchedulerCalls('computed-only');
  expect(calls.half).toBeInstanceOf(DeltasEngineHalf);
  const [a, b] = [calls.request(9), calls.request(7)];
  calls.admit(a, [1, 2, 3]);
  calls.admit(b, [4, 5]);
  calls.arrive(calls.schedule([a, 5], [b, 3]), [a, b]);
  calls.arrive(calls.schedule([b, 4], [a, 4]), [a, b]);
  expect(calls.end(a)).toEqual([...rowsOf(0, 0, 5), ...rowsOf(1, 5, 8)]);
  expect(calls.end(b)).toEqual([...rowsOf(0, 0, 3), ...rowsOf(1, 3, 6)]);
  calls.expectNothingHeld();
});

test('a preempted request computes its positions again: the new rows overlay the earlier ones', () => {
  const calls = new SchedulerCalls('computed-only');
  const a = calls.request(9);
  calls.admit(a, [1, 2, 3]);
  const first = calls.schedule([a, 6]);
  const second = calls.schedule([a, 3]);
  calls.arrive(first, [a]);
  calls.preempt(a);
  // It was under way when the request lost its blocks, and counts.
  calls.arrive(second, [a]);
  calls.admit(a, [4, 5, 6]);
  calls.arrive(calls.schedule([a, 7]), [a]);
  expect(calls.end(a)).toEqual([...rowsOf(2, 0, 7), ...rowsOf(1, 7, 8)]);
  calls.expectNothingHeld();
});

test('aborted with a step in flight: the rows that have come are handed out, those that come later go nowhere', () => {
  const calls = new SchedulerCalls('computed-only');
  const a = calls.request(9);
  calls.admit(a, [1, 2, 3]);
  const first = calls.schedule([a, 4]);
  const second = calls.schedule([a, 5]);
  calls.arrive(first, [a]);
  expect(calls.end(a)).toEqual([...rowsOf(0, 0, 4), ...missing(4)]);
  calls.arrive(second, [a]);
  calls.expectNothingHeld();
});

test('rows of an output that a cache reset threw away are not the request’s', () => {
  const calls = new SchedulerCalls('computed-only');
  const a = calls.request(6);
  calls.admit(a, [1, 2]);
  const first = calls.schedule([a, 6]);
  calls.preempt(a);
  calls.arrive(first, [a], [a]);
  calls.admit(a, [3, 4]);
  calls.arrive(calls.schedule([a, 2]), [a]);
  expect(calls.end(a)).toEqual([...rowsOf(1, 0, 2), ...missing(3)]);
});

test('every cached block is a hit, and its rows are missing', () => {
  const calls = new SchedulerCalls('computed-only');
  const [a, b] = [calls.request(9), calls.request(9)];
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  expect(calls.usable(b, [1, 2])).toBe(2);
  calls.admit(b, [1, 2, 4], 2);
  calls.arrive(calls.schedule([b, 1]), [a, b]);
  expect(calls.end(b)).toEqual(missing(8));
  expect(calls.end(a)).toEqual(rowsOf(0, 0, 8));
  expect(calls.half.liveCounts()).toEqual({ requests: 0, bytes: 0 });
});

test('KV from elsewhere is used, and its rows are missing even if they come with it', () => {
  const calls = new SchedulerCalls('computed-only');
  const a = calls.request(9);
  calls.admit(a, [1, 2, 3]);
  expect([true, false].map((hasRows) => calls.half.acceptsExternalKv!(a, hasRows))).toEqual([true, true]);
  calls.half.onExternalKv?.(a, 0, 7, routedRows(rowShape(model), 0, 7, { chunks: [new Uint8Array(7)] }));
  a.numComputedTokens = 7;
  calls.arrive(calls.schedule([a, 2]), [a]);
  expect(calls.end(a)).toEqual([...missing(7), ...rowsOf(0, 7, 8)]);
});

test('rows before the prompt start are not handed out', () => {
  const calls = new SchedulerCalls('computed-only');
  const a = calls.request(9, 6);
  calls.admit(a, [1, 2, 3]);
  calls.arrive(calls.schedule([a, 9]), [a]);
  expect(calls.end(a)).toEqual(rowsOf(0, 6, 8));
});
