/** A workload adds up, speeds up, and becomes engine requests whose output length nothing but `maxTokens` decides. */

import { expect, test } from 'vitest';
import { speedUp, toEngineRequest, workloadTotals } from '../../src/workload/workload.ts';
import { userError, workloadOf } from './helpers.ts';

test('totals count every request', () => {
  expect(workloadTotals(workloadOf([0, 0, 0]))).toEqual({
    numRequests: 3,
    promptTokens: 3,
    outputTokens: 3,
    largestRequestTokens: 2,
  });
});

test('speedUp divides arrivals and leaves the workload that it was given alone', () => {
  const workload = workloadOf([0, 10, 30]);
  expect(speedUp(workload, 2).requests.map((request) => request.arrivalMs)).toEqual([0, 5, 15]);
  expect(workload.requests.map((request) => request.arrivalMs)).toEqual([0, 10, 30]);
});

test.each([0, -1, Number.NaN, Infinity])('the speedup %s is refused by name', (speedup) => {
  expect(userError(() => speedUp(workloadOf([0, 10]), speedup))).toBe(
    `BAD_VALUE speedup is ${speedup}; give a finite number > 0`,
  );
});

test('a speedup under which a request would never arrive is refused: an open loop would wait for ever', () => {
  expect(userError(() => speedUp(workloadOf([0, 10]), 1e-300))).toMatch(/^BAD_VALUE speedup is 1e-300; give a larger/u);
});

test.each([true, false])('an engine request with opt-in %s ends by its length alone', (returnRoutedExperts) => {
  const [request] = workloadOf([42]).requests;
  expect(toEngineRequest(request!, returnRoutedExperts)).toEqual({
    requestId: 'test-0',
    promptTokenIds: Uint32Array.of(0),
    sampling: {
      maxTokens: 1,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts,
      routedExpertsPromptStart: 0,
    },
    priority: 0,
    arrivalTime: 42,
    cacheSalt: null,
  });
});
