/**
 * A workload: requests with prompts, lengths and arrival times. `opt-in.ts` decides which of them opt in to routed
 * experts.
 */

import type { EngineRequest } from '../contract/request.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { positiveNumber } from './checks.ts';

export type WorkloadRequest = Readonly<{
  /** Unique in its workload. */
  requestId: string;
  promptTokenIds: Uint32Array;
  /** Output tokens: nothing else ends the request, so this many are sampled. */
  maxTokens: number;
  /** Policy `priority`: the smaller number goes first. */
  priority: number;
  /** Milliseconds after the start of the run. */
  arrivalMs: number;
  cacheSalt: string | null;
}>;

export type Workload = Readonly<{
  /** What a report calls it. */
  name: string;
  /** In the order in which a closed loop submits them. */
  requests: readonly WorkloadRequest[];
  /** How many requests must be in flight at once for the workload to be what it claims; 1 = any number will do. */
  minConcurrency: number;
}>;

export type WorkloadTotals = Readonly<{
  numRequests: number;
  promptTokens: number;
  outputTokens: number;
  /**
   * Prompt and output tokens of the largest request: with `maxModelLen` and the KV pool at least this large, none is
   * refused.
   */
  largestRequestTokens: number;
}>;

/** Sums over the requests, in tokens. Tokens that a prefix cache can save are counted each time. */
export function workloadTotals(workload: Workload): WorkloadTotals {
  let promptTokens = 0;
  let outputTokens = 0;
  let largestRequestTokens = 0;
  for (const { promptTokenIds, maxTokens } of workload.requests) {
    promptTokens += promptTokenIds.length;
    outputTokens += maxTokens;
    largestRequestTokens = Math.max(largestRequestTokens, promptTokenIds.length + maxTokens);
  }
  return { numRequests: workload.requests.length, promptTokens, outputTokens, largestRequestTokens };
}

/**
 * The same workload with every arrival divided by `speedup`.
 *
 * @throws BAD_VALUE if `speedup` is not a finite number > 0, or so small that the last request would never arrive
 */
export function speedUp(workload: Workload, speedup: number): Workload {
  positiveNumber('speedup', speedup);
  const requests = workload.requests.map((request) => ({ ...request, arrivalMs: request.arrivalMs / speedup }));
  if (requests.some((request) => request.arrivalMs > Number.MAX_SAFE_INTEGER)) {
    throw RoutedExpertsError.of(
      'BAD_VALUE',
      'speedup',
      speedup,
      'a larger number: the last request would never arrive',
    );
  }
  return { ...workload, requests };
}

/**
 * The request as the engine core takes it. End-of-sequence and stop tokens are ignored, so that its length is the
 * workload's.
 */
export function toEngineRequest(request: WorkloadRequest, returnRoutedExperts: boolean): EngineRequest {
  return {
    requestId: request.requestId,
    promptTokenIds: request.promptTokenIds,
    sampling: {
      maxTokens: request.maxTokens,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts,
      routedExpertsPromptStart: 0,
    },
    priority: request.priority,
    arrivalTime: request.arrivalMs,
    cacheSalt: request.cacheSalt,
  };
}
