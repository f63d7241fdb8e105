/** `--lockstep` and the time-out that rules inside its steps. */

import type { ClockTimes, Dispatch } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';

/** In s. PyTorch gives a collective 600; a bench that stands still shall end while somebody watches it. */
const DEFAULT_COLLECTIVE_TIMEOUT_S = 60;

/** Times in s; a step time-out of 0 is none. */
export type LockstepFlags = Readonly<{
  lockstep?: boolean;
  dataParallel?: number;
  collectiveTimeout?: number;
  stepTimeout: number;
}>;

/** What the longest step may take at least, as far as that is known before it has run. */
export type KnownStep = Readonly<{ clockTimes: ClockTimes | null; ballastMs: number; maxNumBatchedTokens: number }>;

/** In ms; `null`: the ranks do not run in lockstep. Throws BAD_VALUE. */
export function collectiveTimeoutOf(
  { lockstep = false, dataParallel = 1, collectiveTimeout, stepTimeout }: LockstepFlags,
  { clockTimes, ballastMs, maxNumBatchedTokens }: KnownStep,
): number | null {
  const refused = (wanted: string): RoutedExpertsError =>
    RoutedExpertsError.of('BAD_VALUE', '--collective-timeout', collectiveTimeout, wanted);
  // The ranks of several engines cannot run but in lockstep.
  if (!lockstep && dataParallel === 1) {
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

/** Throws BAD_VALUE for ranks that the engines cannot share alike, and for a dispatch between one engine and itself. */
export function ranksPerEngine({
  ranks,
  dataParallel,
  dispatch,
  router,
  routing,
}: Readonly<{
  ranks: number;
  dataParallel: number;
  dispatch: Dispatch;
  router: 'modular' | 'monolithic';
  routing: 'deterministic' | 'replay';
}>): number {
  if (ranks % dataParallel !== 0) {
    const wanted = `a number that divides the ${ranks} ranks (--ranks), as each engine has as many`;
    throw RoutedExpertsError.of('BAD_VALUE', '--data-parallel', dataParallel, wanted);
  }
  if (dataParallel === 1 && dispatch !== 'modular') {
    throw RoutedExpertsError.of('BAD_VALUE', '--dispatch', dispatch, 'modular, or --data-parallel 2 or more');
  }
  if (dispatch === 'modular-shards') {
    const refused = (wanted: string): RoutedExpertsError =>
      RoutedExpertsError.of('BAD_VALUE', '--dispatch', dispatch, wanted);
    if (ranks === dataParallel) throw refused('another one, or more ranks: an engine of one rank has no shards');
    if (router !== 'modular') throw refused('another one, or --router modular: a monolithic one routes all rows');
    if (routing !== 'deterministic') throw refused('another one, or no --recording, which knows no shards');
  }
  return ranks / dataParallel;
}

/** Throws BAD_VALUE for a fault of a rank that there is not. */
export function checkFaultRank(faultRank: number, ranks: number): void {
  if (faultRank < ranks) return;
  throw RoutedExpertsError.of('BAD_VALUE', '--fault-rank', faultRank, `a rank below ${ranks} (--ranks)`);
}
