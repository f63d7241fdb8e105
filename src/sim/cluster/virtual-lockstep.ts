/**
 * The ranks of a cluster meet, in virtual time, in the very words in which the threads of a bench meet. A watchdog
 * ends a wait that is too long, with the same report.
 */

import { type Activity } from '../../worker/pipeline/lockstep/activity-board.ts';
import type { LockstepBarrier } from '../../worker/pipeline/lockstep/lockstep-barrier.ts';
import { LockstepGroup } from '../../worker/pipeline/lockstep/lockstep-group.ts';
import { PassTimes, type RankPasses } from '../../worker/pipeline/lockstep/pass-times.ts';
import type { RankGrid } from '../../worker/pipeline/lockstep/rank-grid.ts';
import { stallReport } from '../../worker/pipeline/lockstep/stall-report.ts';
import type { LockOwner } from '../virtual/virtual-lock.ts';
import { Phase, type Clock } from '../virtual/event-heap.ts';

const US_PER_MS = 1000;

/** Of a pass that all ranks have run. */
export type Release = Readonly<{ pass: number; lastRank: number }>;

/** `ownMs`: of each pass, without a wait before or behind it. `numLate`: passes that most ranks had come to before. */
export type ClusterPasses = RankPasses & Readonly<{ ownMs: readonly number[]; numLate: number }>;

/** Of a step that came to the rank at `acceptedAt`. */
export type EndedPass = Readonly<{ stepId: number; numTokens: number; acceptedAt: number }>;

export type LockstepOptions = Readonly<{
  grid: RankGrid;
  clock: Clock;
  collectiveTimeout: number;
  /** Passes that are released before are not counted. */
  warmUp: number;
  onReleased: (release: Release) => void;
  /** A rank goes on. */
  onRank: (rank: number) => void;
  onStall: (report: string) => void;
}>;

export class VirtualLockstep {
  readonly group: LockstepGroup;
  readonly #options: LockstepOptions;
  readonly #times: readonly PassTimes[];
  /** When each rank began its pass, and what its passes took, in ms: without a wait before or behind them. */
  readonly #beganAt: Float64Array;
  readonly #ownMs: readonly number[][];
  /** How often each rank was among the few that all others waited for before a pass. */
  readonly #numLate: Int32Array;
  /** The ranks that came last to the pass that is to come, all at one time. */
  #lastToCome: Readonly<{ at: number; ranks: number[] }> = { at: -1, ranks: [] };
  #lastReleasedAt = 0;
  /** What waits at each barrier. */
  readonly #waiting: Map<LockstepBarrier, Readonly<{ rank: number; goOn: () => void }>[]> = new Map();
  /** Of each engine's pass, once a rank has asked for them. */
  #rows: readonly number[] | null = null;
  /** The last to arrive at `passes`. */
  #lastRank = -1;

  constructor(options: LockstepOptions) {
    const { grid } = options;
    this.#options = options;
    this.group = new LockstepGroup(grid, new Int32Array(LockstepGroup.numWords(grid)));
    this.#times = Array.from({ length: grid.numRanks }, () => new PassTimes());
    this.#beganAt = new Float64Array(grid.numRanks);
    this.#ownMs = Array.from({ length: grid.numRanks }, () => []);
    this.#numLate = new Int32Array(grid.numRanks);
    this.#waiting.set(this.group.sizes, []);
    this.#waiting.set(this.group.passes, []);
  }

  /** Engines run passes of different sizes: their ranks say so before each. */
  get hasOtherEngines(): boolean {
    return this.group.grid.sizes.dataParallel > 1;
  }

  get isGivenUp(): boolean {
    return this.group.passes.isGivenUp;
  }

  note(rank: number, activity: Activity, stepId: number): void {
    this.group.board.note(rank, activity, stepId, this.#nowMs);
  }

  /** See `LockNote`. `actor`: a rank, or an engine behind the ranks. */
  noteLock(actor: number, from: number, until: number): void {
    const { clock } = this.#options;
    const { board } = this.group;
    board.noteLock(actor, from > clock.now ? 'waits' : 'holds', this.#nowMs);
    if (from > clock.now) clock.plan(from, Phase.device, () => board.noteLock(actor, 'holds', this.#nowMs));
    clock.plan(until, Phase.device, () => board.noteLock(actor, 'none', this.#nowMs));
  }

  /** The rank comes to a pass of so many rows. */
  passComes(rank: number, stepId: number, numRows: number, goOn: (rowsOfEngines: readonly number[]) => void): void {
    this.note(rank, 'sizes', stepId);
    this.group.postRows(rank, numRows);
    const { clock, warmUp } = this.#options;
    if (clock.now > this.#lastToCome.at) this.#lastToCome = { at: clock.now, ranks: [] };
    const { ranks } = this.#lastToCome;
    ranks.push(rank);
    const isLast = this.#meet(this.group.sizes, rank, () => {
      this.#beganAt[rank] = clock.now;
      goOn((this.#rows ??= this.group.rowsOfEngines()));
    });
    if (!isLast || clock.now < warmUp) return;
    // Where most ranks come last, none of them is late.
    if (2 * ranks.length <= this.#numLate.length) for (const each of ranks) this.#numLate[each]! += 1;
  }

  /** The rank has run its pass. */
  passEnded(rank: number, { stepId, numTokens, acceptedAt }: EndedPass, goOn: () => void): void {
    const { clock, warmUp } = this.#options;
    const arrivedAt = clock.now;
    const beganAt = this.hasOtherEngines ? this.#beganAt[rank]! : Math.max(acceptedAt, this.#lastReleasedAt);
    this.note(rank, 'barrier', stepId);
    this.#lastRank = rank;
    this.#meet(this.group.passes, rank, () => {
      this.note(rank, 'results', stepId);
      this.#times[rank]!.add({
        numTokens,
        acceptedAt: acceptedAt / US_PER_MS,
        arrivedAt: arrivedAt / US_PER_MS,
        releasedAt: clock.now / US_PER_MS,
        isLast: rank === this.#lastRank,
      });
      if (clock.now < warmUp) this.#times[rank]!.take();
      else this.#ownMs[rank]!.push((arrivedAt - beganAt) / US_PER_MS);
      goOn();
    });
  }

  stepEnded(rank: number, stepId: number): void {
    const { activity, stepId: latest } = this.group.board.stateOf(rank);
    if (activity === 'results' && latest === stepId) this.note(rank, 'idle', stepId);
  }

  /** Of each rank. */
  takePasses(): readonly ClusterPasses[] {
    return this.#times.map((times, rank) => ({
      ...times.take(),
      ownMs: this.#ownMs[rank]!,
      numLate: this.#numLate[rank]!,
    }));
  }

  get #nowMs(): number {
    return Math.round(this.#options.clock.now / US_PER_MS);
  }

  /** `goOn` runs when all ranks have come, behind the event that brought the last. Returns whether this was it. */
  #meet(barrier: LockstepBarrier, rank: number, goOn: () => void): boolean {
    const { clock, collectiveTimeout, onReleased, onRank } = this.#options;
    const waiting = this.#waiting.get(barrier)!;
    const { pass, isLast } = barrier.arrive(rank);
    waiting.push({ rank, goOn });
    if (waiting.length === 1) clock.plan(clock.now + collectiveTimeout, Phase.begin, () => this.#watch(barrier, pass));
    if (!isLast) return false;
    this.#waiting.set(barrier, []);
    if (barrier === this.group.passes) {
      this.#lastReleasedAt = clock.now;
      onReleased({ pass, lastRank: rank });
    }
    clock.plan(clock.now, Phase.worker, () => {
      this.#rows = null;
      for (const each of waiting) {
        onRank(each.rank);
        each.goOn();
      }
    });
    return true;
  }

  #watch(barrier: LockstepBarrier, pass: number): void {
    if (this.isGivenUp || barrier.outcomeOf(pass) !== 'waiting') return;
    const report = stallReport(this.group, barrier, this.#nowMs);
    this.group.sizes.giveUp();
    this.group.passes.giveUp();
    this.#options.onStall(report);
  }
}

/** Where a lock's owner stands on the board. */
export function actorOf({ grid }: LockstepGroup, engine: number, owner: LockOwner): number {
  return owner === 'engine' ? grid.numRanks + engine : grid.rankOf({ engine, stage: 0, tensorRank: 0 });
}
