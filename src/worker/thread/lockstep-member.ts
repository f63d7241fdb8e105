/** A rank's part in a lockstep group: the waits and the clock that the group itself does not know. */

import type { LockstepConfig } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { Activity } from '../pipeline/lockstep/activity-board.ts';
import { type Arrival, LockstepBarrier } from '../pipeline/lockstep/lockstep-barrier.ts';
import type { LockstepGroup } from '../pipeline/lockstep/lockstep-group.ts';
import { PassTimes, type RankPasses } from '../pipeline/lockstep/pass-times.ts';
import { stallReport } from '../pipeline/lockstep/stall-report.ts';
import { groupMs, groupOf } from './shared-lockstep.ts';

/** A wait that ends before its time-out leaves a timer behind until then: long waits are made of short ones. */
const WAIT_SLICE_MS = 1000;

export class LockstepMember {
  readonly rank: number;
  readonly #config: LockstepConfig;
  readonly #group: LockstepGroup;
  readonly #times = new PassTimes();
  readonly #engineRanks: readonly number[];

  /** `rank`, `numRanks`: within the engine. */
  constructor(config: LockstepConfig, rank: number, numRanks: number) {
    this.#config = config;
    this.#group = groupOf(config, numRanks);
    this.#engineRanks = this.#group.ranksOf(config.engine);
    this.rank = this.#group.grid.rankOf({ engine: config.engine, stage: 0, tensorRank: rank });
  }

  /** Engines run passes of different sizes: their ranks say so before each. */
  get hasOtherEngines(): boolean {
    return this.#config.numEngines > 1;
  }

  /** The rank comes to a pass of so many rows; resolves with those of each engine. Rejects as `passEnded` does. */
  async sizesOf(stepId: number, numRows: number): Promise<readonly number[]> {
    this.#note('sizes', stepId);
    this.#group.postRows(this.rank, numRows);
    await this.#meet(this.#group.sizes, performance.now());
    return this.#group.rowsOfEngines();
  }

  /** The step's forward pass begins. */
  passBegins(stepId: number): void {
    this.#note('pass', stepId);
  }

  /**
   * The rank has run the pass of a step that came at `acceptedAt`; resolves when all ranks have run theirs. The thread
   * goes on meanwhile. With a shard of rows it resolves with those of all ranks of the engine. Rejects with
   * COLLECTIVE_TIMEOUT once a rank, this one or another, has waited too long.
   */
  async passEnded(stepId: number, acceptedAt: number, shard: Uint32Array | null): Promise<Uint32Array | null> {
    const { passes, shards } = this.#group;
    const arrivedAt = performance.now();
    this.#note('barrier', stepId);
    if (shard !== null) shards.leave(this.rank, passes.numReleased, shard);
    const { pass, isLast } = await this.#meet(passes, arrivedAt);
    const gathered = shard === null ? null : shards.take(this.#engineRanks, pass, shard.length);
    this.#note('results', stepId);
    this.#times.add({ acceptedAt, arrivedAt, releasedAt: performance.now(), isLast });
    return gathered;
  }

  /** The step has brought its results. The next one may have begun. */
  stepEnded(stepId: number): void {
    const { activity, stepId: latest } = this.#group.board.stateOf(this.rank);
    if (activity === 'results' && latest === stepId) this.#note('idle', stepId);
  }

  takePasses(): RankPasses {
    return this.#times.take();
  }

  async #meet(barrier: LockstepBarrier, arrivedAt: number): Promise<Arrival> {
    const arrival = barrier.arrive(this.rank);
    const { pass, isLast } = arrival;
    if (isLast) Atomics.notify(barrier.words, LockstepBarrier.RELEASE_WORD);
    const endsAt = arrivedAt + this.#config.collectiveTimeoutMs;
    for (let outcome = barrier.outcomeOf(pass); outcome !== 'released'; outcome = barrier.outcomeOf(pass)) {
      const leftMs = endsAt - performance.now();
      if (outcome === 'given-up' || leftMs <= 0) throw this.#giveUp(barrier);
      const wait = Atomics.waitAsync(
        barrier.words,
        LockstepBarrier.RELEASE_WORD,
        pass,
        Math.min(leftMs, WAIT_SLICE_MS),
      );
      if (wait.async) await wait.value;
    }
    return arrival;
  }

  #note(activity: Activity, stepId: number): void {
    this.#group.board.note(this.rank, activity, stepId, groupMs(this.#config));
  }

  #giveUp(barrier: LockstepBarrier): RoutedExpertsError {
    const report = stallReport(this.#group, barrier, groupMs(this.#config));
    giveUp(this.#group);
    return RoutedExpertsError.of('COLLECTIVE_TIMEOUT', this.#config.collectiveTimeoutMs, report);
  }
}

/** No rank waits for another any more: those that wait see that the word has not changed, and look. */
export function giveUp({ sizes, passes }: LockstepGroup): void {
  for (const barrier of [sizes, passes]) {
    barrier.giveUp();
    Atomics.notify(barrier.words, LockstepBarrier.RELEASE_WORD);
  }
}
