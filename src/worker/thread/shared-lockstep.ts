/** A lockstep group in memory that its threads share, on a clock that they share. */

import type { SharedRows } from '../../capture/shm-flock/shared-rows.ts';
import type { LockstepConfig, WorkerConfig } from '../../contract/config.ts';
import type { LockState } from '../pipeline/lockstep/activity-board.ts';
import { LockstepGroup } from '../pipeline/lockstep/lockstep-group.ts';
import { RankGrid } from '../pipeline/lockstep/rank-grid.ts';

/** The group of engine 0, at its start. */
export function newLockstep(
  grid: RankGrid,
  options: Pick<LockstepConfig, 'collectiveTimeoutMs' | 'dispatch' | 'shardWords'>,
): LockstepConfig {
  return {
    ...options,
    memory: new SharedArrayBuffer(4 * LockstepGroup.numWords(grid, options.shardWords)),
    numEngines: grid.sizes.dataParallel,
    engine: 0,
    startedAt: epochMs(),
  };
}

/** Of `modular-shards`: what a rank routes alone in the largest step. */
export function mostShardWords({
  engine,
  model,
  numRanks,
}: Pick<WorkerConfig, 'engine' | 'model' | 'numRanks'>): number {
  return Math.ceil(engine.maxNumBatchedTokens / numRanks) * model.numLayers * model.topK;
}

/** The group as any of its threads sees it. `numRanks`: of each engine. */
export function groupOf({ memory, numEngines, shardWords }: LockstepConfig, numRanks: number): LockstepGroup {
  const sizes = { dataParallel: numEngines, pipelineParallel: 1, tensorParallel: numRanks };
  return new LockstepGroup(new RankGrid(sizes), new Int32Array(memory), shardWords);
}

/** Since the group's start. */
export function groupMs({ startedAt }: LockstepConfig): number {
  return Math.round(epochMs() - startedAt);
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
