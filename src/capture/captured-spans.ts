/** Which rows of a step a request wants and keeps: the arithmetic that worker halves with an opt-in share. */

import type { WorkerStep } from '../contract/capture.ts';

/** Rows at the front of request `i`'s part of the step that are before its prompt start. */
export function skippedRows(step: WorkerStep, i: number): number {
  return Math.min(step.tokenCounts[i]!, Math.max(0, step.promptStarts[i]! - step.tokenStarts[i]!));
}

/** Rows of request `i` in the step that can be wanted at all. */
export function capturedRows(step: WorkerStep, i: number): number {
  return step.optedIn[i] === 1 ? step.tokenCounts[i]! - skippedRows(step, i) : 0;
}

/**
 * Tokens of request `i` whose KV stands after the step: all that it computed, less the drafts that verification
 * refused.
 */
export function acceptedTokens(step: WorkerStep, i: number, numSampledTokens: number): number {
  const drafts = step.draftCounts[i]!;
  return drafts === 0 ? step.tokenCounts[i]! : step.tokenCounts[i]! - drafts + numSampledTokens - 1;
}

/** Lists the rows of all opted-in requests as `recordPack` takes them, `list[1 …]`. Answers how many. */
export function listCapturedRows(step: WorkerStep, list: Uint32Array): number {
  let numRows = 0;
  for (let i = 0; i < step.numRequests; i++) {
    const count = capturedRows(step, i);
    const first = step.rowStarts[i]! + step.tokenCounts[i]! - count;
    for (let row = 0; row < count; row++) list[++numRows] = first + row;
  }
  return numRows;
}
