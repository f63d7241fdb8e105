/** What a group of ranks says when it stands still: which rank waits for which, since when, holding what. */

import { DUMMY_STEP, type ActorState } from './activity-board.ts';
import type { LockstepBarrier } from './lockstep-barrier.ts';
import type { LockstepGroup } from './lockstep-group.ts';

/** Of a group of thousands nobody reads every line. */
const MOST_LINES = 16;

/** In lines, the first of them a sentence. `barrier`: where the wait was too long. `nowMs`: since the group's start. */
export function stallReport({ grid, board }: LockstepGroup, barrier: LockstepBarrier, nowMs: number): string {
  const ranks = Array.from({ length: grid.numRanks }, (_, rank) => rank);
  const stateOf = (rank: number): ActorState => board.stateOf(rank);
  const absent = barrier.absentRanks;
  const waiting = ranks.filter((rank) => !absent.includes(rank));
  const lines = absent.map((rank) => `${grid.nameOf(rank)}: ${doing(stateOf(rank), nowMs)}`);
  for (let engine = 0; engine < grid.sizes.dataParallel; engine++) {
    const lock = lockText(board.stateOf(grid.numRanks + engine), nowMs);
    if (lock !== null) lines.push(`the scheduler of engine ${engine}: ${lock}`);
  }
  const left = lines.length - MOST_LINES;
  if (left > 0) lines.splice(MOST_LINES, left, `and ${left} more`);
  const since = Math.min(...waiting.map((rank) => stateOf(rank).since));
  const wait = waiting.length === 1 ? 'waits' : 'wait';
  const first = `${listed(waiting)} ${wait} at the barrier, since ${seconds(nowMs - since)}, for ${listed(absent)}`;
  return [first, ...lines].join('\n  ');
}

/** Of a rank that others wait for. */
function doing(state: ActorState, nowMs: number): string {
  const { activity, stepId, since } = state;
  const ago = `since ${seconds(nowMs - since)}`;
  const lock = lockText(state, nowMs);
  const holding = lock === null ? '' : `, ${lock}`;
  switch (activity) {
    case 'idle':
      return `has no step, ${ago}${holding}`;
    case 'pass':
      return `runs ${stepText(stepId)}, ${ago}${holding}`;
    case 'results':
      return `brings the results of ${stepText(stepId)}, ${ago}${holding}`;
    // The group has gone on, and the rank's thread has not seen it.
    case 'sizes':
      return `stands still before ${stepText(stepId)}, to which all ranks have come, ${ago}${holding}`;
    case 'barrier':
      return `stands still behind ${stepText(stepId)}, which all ranks have run, ${ago}${holding}`;
    default:
      return activity satisfies never;
  }
}

function stepText(stepId: number): string {
  return stepId === DUMMY_STEP ? 'a dummy step' : `step ${stepId}`;
}

function lockText({ lock, lockSince }: ActorState, nowMs: number): string | null {
  return lock === 'none'
    ? null
    : `${lock === 'holds' ? 'holds' : 'waits for'} the lock, since ${seconds(nowMs - lockSince)}`;
}

/** As `ranks 0, 2–5`. */
function listed(ranks: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const rank of ranks) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] === rank - 1) last[1] = rank;
    else runs.push([rank, rank]);
  }
  const texts = runs.map(([from, to]) => (from === to ? `${from}` : `${from}${to === from + 1 ? ', ' : '–'}${to}`));
  const shown = texts.length > MOST_LINES ? [...texts.slice(0, MOST_LINES), '…'] : texts;
  return `${ranks.length === 1 ? 'rank' : 'ranks'} ${shown.join(', ')}`;
}

function seconds(ms: number): string {
  return `${(ms / 1e3).toFixed(1)} s`;
}
