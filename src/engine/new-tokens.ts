/** The tokens that the scheduler tells the stages of a pipeline: only the last of them has sampled them. */

import { RequestKind, type SchedulerOutput } from '../contract/scheduler-output.ts';
import type { Request } from './request.ts';

/**
 * Writes `newTokens` of a step over its first `count` requests, whose counters are those before the step. A request
 * that joins brings all its tokens, and prompts are known.
 */
export function writeNewTokens(output: SchedulerOutput, requests: readonly Request[], count: number): void {
  const tokens = (output.newTokens ??= { tokenIds: new Uint32Array(0), offsets: new Uint32Array(1) });
  if (tokens.offsets.length <= count) tokens.offsets = new Uint32Array(2 * count + 1);
  let numTokens = 0;
  for (let i = 0; i < count; i += 1) {
    const { stepKind, numComputedTokens, stepNumTokens, numPromptTokens, tokenIds } = requests[i]!;
    const from = Math.max(numComputedTokens, numPromptTokens);
    const end = stepKind === RequestKind.running ? Math.max(from, numComputedTokens + stepNumTokens) : from;
    const needed = numTokens + end - from;
    if (needed > tokens.tokenIds.length) tokens.tokenIds = grown(tokens.tokenIds, needed);
    for (let position = from; position < end; position += 1) tokens.tokenIds[numTokens++] = tokenIds[position]!;
    tokens.offsets[i + 1] = numTokens;
  }
}

function grown(array: Uint32Array, length: number): Uint32Array<ArrayBuffer> {
  const longer = new Uint32Array(Math.max(length, 2 * array.length));
  longer.set(array);
  return longer;
}
