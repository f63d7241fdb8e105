/** `--lockstep` and the time-out that rules inside its steps. */

import type { ClockTimes } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';

/** In s. PyTorch gives a collective 600; a bench that stands still shall end while somebody watches it. */
const DEFAULT_COLLECTIVE_TIMEOUT_S = 60;

/** Times in s; a step time-out of 0 is none. */
export type LockstepFlags = Readonly<{ lockstep?: boolean; collectiveTimeout?: number; stepTimeout: number }>;

/** What the longest step may take at least, as far as that is known before it has run. */
export type KnownStep = Readonly<{ clockTimes: ClockTimes | null; ballastMs: number; maxNumBatchedTokens: number }>;

/** In ms; `null`: the ranks do not run in lockstep. Throws BAD_VALUE. */
export function collectiveTimeoutOf(
  { lockstep = false, collectiveTimeout, stepTimeout }: LockstepFlags,
  { clockTimes, ballastMs, maxNumBatchedTokens }: KnownStep,
): number | null {
  const refused = (wanted: string): RoutedExpertsError =>
    RoutedExpertsError.of('BAD_VALUE', '--collective-timeout', collectiveTimeout, wanted);
  if (!lockstep) {
    if (collectiveTimeout === undefined) return null;
    throw refused('none, or --lockstep: without it no rank waits for another');
  }
  const mostS = stepTimeout === 0 ? Infinity : stepTimeout;
  const timeoutS = collectiveTimeout ?? Math.min(DEFAULT_COLLECTIVE_TIMEOUT_S, mostS);
  if (timeoutS > mostS) {
    throw refused(`at most ${mostS} s, the --step-timeout, which would end the step before`);
  }
  const passMs = clockTimes === null ? 0 : clockTimes.stepMs + (maxNumBatchedTokens * clockTimes.perTokenUs) / 1e3;
  const longestStepMs = Math.max(ballastMs, passMs);
  if (timeoutS * 1e3 <= longestStepMs) {
    throw refused(
      `more than ${(longestStepMs / 1e3).toFixed(3)} s, which a step of ${maxNumBatchedTokens} tokens takes`,
    );
  }
  return timeoutS * 1e3;
}

/** Throws BAD_VALUE for a fault of a rank that there is not. */
export function checkFaultRank(faultRank: number, ranks: number): void {
  if (faultRank < ranks) return;
  throw RoutedExpertsError.of('BAD_VALUE', '--fault-rank', faultRank, `a rank below ${ranks} (--ranks)`);
}
