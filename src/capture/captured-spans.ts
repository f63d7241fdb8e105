/** Which rows of a step a request wants and keeps: the arithmetic that worker halves with an opt-in share. */

import type { WorkerStep } from '../contract/capture.ts';

/** Rows of request `i` in the step that can be wanted at all: the last ones, from its prompt start on. */
export function capturedRows(step: WorkerStep, i: number): number {
  if (step.optedIn[i] === 0) return 0;
  const end = step.tokenStarts[i]! + step.tokenCounts[i]!;
  return Math.max(0, Math.min(step.tokenCounts[i]!, end - step.promptStarts[i]!));
}

/**
 * Tokens of request `i` whose KV stands after the step: all that it computed, less the drafts that verification
 * refused.
 */
export function acceptedTokens(step: WorkerStep, i: number, numSampledTokens: number): number {
  const drafts = step.draftCounts[i]!;
  return drafts === 0 ? step.tokenCounts[i]! : step.tokenCounts[i]! - drafts + numSampledTokens - 1;
}
