/** Ranks repeat each other's work: what one of them samples, all of them sample. */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';

/** Throws RANKS_DIFFER for the first rank whose requests, their order or their tokens are not those of rank 0. */
export function requireAgreement(outputs: readonly ModelRunnerOutput[]): void {
  const first = outputs[0]!;
  for (let rank = 1; rank < outputs.length; rank++) {
    const what = rankDifference(first, outputs[rank]!);
    if (what !== null) throw RoutedExpertsError.of('RANKS_DIFFER', rank, first.stepId, what);
  }
}

/** Throws INVARIANT for a pipeline stage that ran another step than the last one, or in another order. */
export function requireSameStep(last: ModelRunnerOutput, output: ModelRunnerOutput, stage: number): void {
  const what = stepDifference(last, output);
  if (what === null) return;
  throw RoutedExpertsError.of('INVARIANT', `stage ${stage} differs from the last in step ${last.stepId}: ${what}`);
}

/** What another rank did otherwise than rank 0. `null`: nothing. */
export function rankDifference(a: ModelRunnerOutput, b: ModelRunnerOutput): string | null {
  const n = a.numRequests;
  const difference = stepDifference(a, b);
  if (difference !== null) return difference;
  if (!areEqual(a.sampledOffsets, b.sampledOffsets, n + 1)) return 'it sampled another number of tokens';
  if (!areEqual(a.sampledTokenIds, b.sampledTokenIds, a.sampledOffsets[n]!)) return 'it sampled other tokens';
  return null;
}

function stepDifference(a: ModelRunnerOutput, b: ModelRunnerOutput): string | null {
  const n = a.numRequests;
  if (b.stepId !== a.stepId) return `it ran step ${b.stepId}`;
  if (b.numRequests !== n) return `it ran ${b.numRequests} requests, rank 0 ran ${n}`;
  return areEqual(a.requestIndices, b.requestIndices, n) ? null : 'it ran the requests in another order';
}

function areEqual(a: Uint32Array, b: Uint32Array, length: number): boolean {
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return false;
  return true;
}
