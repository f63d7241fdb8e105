/**
 * A tensor-parallel rank of which only the time is simulated: its rows are those of the first rank of its engine, which
 * has computed them. It takes the turns of the step pipeline: of a design that blocks, the next pass begins when the
 * results of this one have been read.
 */

import { DUMMY_STEP } from '../../worker/pipeline/lockstep/activity-board.ts';
import { Phase } from '../virtual/event-heap.ts';
import type { RankTimes } from './rank-times.ts';
import type { VirtualLockstep } from './virtual-lockstep.ts';

/** `stepId`: `DUMMY_STEP` for a pass without a request. */
export type TimedPass = Readonly<{ stepId: number; numTokens: number }>;

type Accepted = TimedPass & Readonly<{ acceptedAt: number }>;

export type TimingRankOptions = Readonly<{
  /** In the cluster. */
  rank: number;
  times: RankTimes;
  lockstep: VirtualLockstep;
  /** Whether the rank reads its slot mapping before each pass, and waits for it. */
  readsSlots: boolean;
}>;

const SLOT_BYTES = 4;

export class TimingRank {
  readonly #options: TimingRankOptions;
  readonly #queue: Accepted[] = [];
  #isRunning = false;
  isDead = false;
  /** Copied to the host for capture. */
  captureBytes = 0;

  constructor(options: TimingRankOptions) {
    this.#options = options;
  }

  accept(pass: TimedPass): void {
    if (this.isDead) return;
    this.#queue.push({ ...pass, acceptedAt: this.#options.times.clock.now });
    this.#advance();
  }

  #advance(): void {
    if (this.#isRunning) return;
    const pass = this.#queue.shift();
    if (pass === undefined) return;
    this.#isRunning = true;
    const { lockstep, rank } = this.#options;
    if (!lockstep.hasOtherEngines) this.#begin(pass);
    else lockstep.passComes(rank, pass.stepId, pass.numTokens, () => this.#begin(pass));
  }

  #begin(pass: Accepted): void {
    if (this.isDead) return;
    const { lockstep, rank, times, readsSlots } = this.#options;
    const { numTokens, stepId } = pass;
    lockstep.note(rank, 'pass', stepId);
    let ticks = times.pass({ numTokens, captureBytes: 0 });
    if (readsSlots && stepId !== DUMMY_STEP) {
      const numBytes = numTokens * SLOT_BYTES;
      this.captureBytes += numBytes;
      ticks += times.read(numBytes) + times.map('before');
    }
    this.#plan(ticks, () => lockstep.passEnded(rank, pass, () => this.#released(pass)));
  }

  #released({ stepId }: Accepted): void {
    const { lockstep, rank, times, readsSlots } = this.#options;
    const end = (): void => {
      lockstep.stepEnded(rank, stepId);
      this.#isRunning = false;
      this.#advance();
    };
    if (readsSlots && stepId !== DUMMY_STEP) this.#plan(times.map('results'), end);
    else end();
  }

  #plan(ticks: number, run: () => void): void {
    const { clock } = this.#options.times;
    clock.plan(clock.now + ticks, Phase.device, () => {
      if (!this.isDead) run();
    });
  }
}
