/** A rank's, or an engine's, part in a lockstep group: the waits and the clock that the group itself does not know. */

import type { SharedRows } from '../../capture/shm-flock/shared-rows.ts';
import type { LockstepConfig } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { Activity, LockState } from '../pipeline/lockstep/activity-board.ts';
import { LockstepBarrier } from '../pipeline/lockstep/lockstep-barrier.ts';
import { LockstepGroup } from '../pipeline/lockstep/lockstep-group.ts';
import { PassTimes, type RankPasses } from '../pipeline/lockstep/pass-times.ts';
import { RankGrid } from '../pipeline/lockstep/rank-grid.ts';
import { stallReport } from '../pipeline/lockstep/stall-report.ts';

/** An engine's ranks in a group of their own, at its start. */
export function newLockstep(grid: RankGrid, collectiveTimeoutMs: number): LockstepConfig {
  return {
    memory: new SharedArrayBuffer(4 * LockstepGroup.numWords(grid)),
    numEngines: grid.sizes.dataParallel,
    engine: 0,
    startedAt: epochMs(),
    collectiveTimeoutMs,
  };
}

/** The group that a configuration names, as any of its threads sees it. */
export function groupOf({ memory, numEngines }: LockstepConfig, numRanks: number): LockstepGroup {
  const sizes = { dataParallel: numEngines, pipelineParallel: 1, tensorParallel: numRanks };
  return new LockstepGroup(new RankGrid(sizes), new Int32Array(memory));
}

export class LockstepMember {
  readonly rank: number;
  readonly #config: LockstepConfig;
  readonly #group: LockstepGroup;
  readonly #times = new PassTimes();

  /** `rank`, `numRanks`: within the engine. */
  constructor(config: LockstepConfig, rank: number, numRanks: number) {
    this.#config = config;
    this.#group = groupOf(config, numRanks);
    this.rank = this.#group.grid.rankOf({ engine: config.engine, stage: 0, tensorRank: rank });
  }

  /** The step's forward pass begins. */
  passBegins(stepId: number): void {
    this.#note('pass', stepId);
  }

  /** The step has brought its results. The next one may have begun. */
  stepEnded(stepId: number): void {
    const { activity, stepId: latest } = this.#group.board.stateOf(this.rank);
    if (activity === 'results' && latest === stepId) this.#note('idle', stepId);
  }

  /**
   * The rank has run the pass of a step that came at `acceptedAt`; resolves when all ranks have run theirs. The thread
   * goes on meanwhile. Rejects with COLLECTIVE_TIMEOUT once a rank, this one or another, has waited too long.
   */
  async passEnded(stepId: number, acceptedAt: number): Promise<void> {
    const { barrier, words } = this.#group;
    const arrivedAt = performance.now();
    this.#note('barrier', stepId);
    const { pass, isLast } = barrier.arrive(this.rank);
    if (isLast) Atomics.notify(words, LockstepBarrier.RELEASE_WORD);
    const endsAt = arrivedAt + this.#config.collectiveTimeoutMs;
    for (let outcome = barrier.outcomeOf(pass); outcome !== 'released'; outcome = barrier.outcomeOf(pass)) {
      const leftMs = endsAt - performance.now();
      if (outcome === 'given-up' || leftMs <= 0) throw this.#giveUp();
      const wait = Atomics.waitAsync(words, LockstepBarrier.RELEASE_WORD, pass, leftMs);
      if (wait.async) await wait.value;
    }
    this.#note('results', stepId);
    this.#times.add({ acceptedAt, arrivedAt, releasedAt: performance.now(), isLast });
  }

  takePasses(): RankPasses {
    return this.#times.take();
  }

  #note(activity: Activity, stepId: number): void {
    this.#group.board.note(this.rank, activity, stepId, groupMs(this.#config));
  }

  #giveUp(): RoutedExpertsError {
    const { barrier, words } = this.#group;
    const report = stallReport(this.#group, groupMs(this.#config));
    barrier.giveUp();
    // Those that wait see that the word has not changed, and look.
    Atomics.notify(words, LockstepBarrier.RELEASE_WORD);
    return RoutedExpertsError.of('COLLECTIVE_TIMEOUT', this.#config.collectiveTimeoutMs, report);
  }
}

/** The rows, with a lock that the group's reports know of. `rank`: within the engine; `null`: its scheduler. */
export function watchedRows(
  rows: SharedRows,
  { lockstep, numRanks }: Readonly<{ lockstep?: LockstepConfig; numRanks: number }>,
  rank: number | null,
): SharedRows {
  if (lockstep === undefined) return rows;
  const { engine } = lockstep;
  const group = groupOf(lockstep, numRanks);
  const actor = rank === null ? group.engineActor(engine) : group.grid.rankOf({ engine, stage: 0, tensorRank: rank });
  const note = (lock: LockState): void => group.board.noteLock(actor, lock, groupMs(lockstep));
  return {
    get rows() {
      return rows.rows;
    },
    lock: () => {
      note('waits');
      rows.lock();
      note('holds');
    },
    unlock: () => {
      rows.unlock();
      note('none');
    },
    close: () => rows.close(),
  };
}

/** Comparable across threads, whose `performance.now()` have zeros of their own. */
function epochMs(): number {
  return performance.timeOrigin + performance.now();
}

function groupMs({ startedAt }: LockstepConfig): number {
  return Math.round(epochMs() - startedAt);
}
