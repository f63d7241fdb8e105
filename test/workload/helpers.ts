/** Shared by the tests of `src/workload`. */

import { RoutedExpertsError } from '../../src/contract/errors.ts';
import type { Workload } from '../../src/workload/workload.ts';

/** Everything that a workload holds, as text: two workloads are the same bytes exactly if these are the same. */
export function fingerprint(workload: Workload): string {
  return JSON.stringify({
    ...workload,
    requests: workload.requests.map((request) => ({ ...request, promptTokenIds: [...request.promptTokenIds] })),
  });
}

export function commonPrefix(a: Uint32Array, b: Uint32Array): number {
  const end = Math.min(a.length, b.length);
  let length = 0;
  while (length < end && a[length] === b[length]) length++;
  return length;
}

/** The error that a user would read, as `CODE message`; anything else than a RoutedExpertsError fails the test. */
export function userError(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof RoutedExpertsError) return `${error.code} ${error.message}`;
    throw error;
  }
  throw new Error('expected a RoutedExpertsError, nothing was thrown');
}

/** A workload of empty-handed requests that arrive at these times. */
export function workloadOf(arrivalsMs: readonly number[]): Workload {
  return {
    name: 'test',
    minConcurrency: 1,
    requests: arrivalsMs.map((arrivalMs, number) => ({
      requestId: `test-${number}`,
      promptTokenIds: Uint32Array.of(number),
      maxTokens: 1,
      priority: 0,
      arrivalMs,
      cacheSalt: null,
    })),
  };
}
