/**
 * Where the ranks of a group meet at the end of each forward pass, as the experts' all-to-all makes them: no rank
 * begins the next pass before all have run this one. It does not wait itself, and knows no clock: it lies in words that
 * threads share, or, in virtual time, in an array.
 */

import { RoutedExpertsError } from '../../../contract/errors.ts';

/** `isLast`: every other rank had arrived before, and the pass is released. */
export type Arrival = Readonly<{ pass: number; isLast: boolean }>;

/** What has become of a pass. `given-up`: a rank has waited too long, and the group is of no use any more. */
export type PassOutcome = 'waiting' | 'released' | 'given-up';

/**
 *     word   0             1              2           3 …
 *            numArrived    numReleased    isGivenUp   passes of each rank
 *
 * Invariant: a rank has arrived for `numReleased` passes, or for one more; `numArrived` have arrived for one more.
 */
const NUM_ARRIVED = 0;
const NUM_RELEASED = 1;
const IS_GIVEN_UP = 2;
const PASSES = 3;

export class LockstepBarrier {
  /** The word that changes with every release: what a thread waits for. */
  static readonly RELEASE_WORD: number = NUM_RELEASED;
  readonly numRanks: number;
  readonly words: Int32Array;

  /** `words`: zeros at first, and then the barrier's own. */
  constructor(words: Int32Array, numRanks: number) {
    this.words = words;
    this.numRanks = numRanks;
  }

  static numWords(numRanks: number): number {
    return PASSES + numRanks;
  }

  get numReleased(): number {
    return Atomics.load(this.words, NUM_RELEASED);
  }

  get isGivenUp(): boolean {
    return Atomics.load(this.words, IS_GIVEN_UP) !== 0;
  }

  /** Ranks that the current pass waits for. */
  get absentRanks(): readonly number[] {
    const pass = this.numReleased;
    const ranks = Array.from({ length: this.numRanks }, (_, rank) => rank);
    return ranks.filter((rank) => Atomics.load(this.words, PASSES + rank) === pass);
  }

  /** The rank has run its pass. Throws INVARIANT for a rank that has arrived and was not released. */
  arrive(rank: number): Arrival {
    const pass = Atomics.load(this.words, PASSES + rank);
    if (pass !== this.numReleased) {
      throw RoutedExpertsError.of('INVARIANT', `rank ${rank} ends pass ${pass}, the group runs ${this.numReleased}`);
    }
    Atomics.store(this.words, PASSES + rank, pass + 1);
    const isLast = Atomics.add(this.words, NUM_ARRIVED, 1) === this.numRanks - 1;
    if (isLast) {
      // In this order: a rank that sees the release may arrive for the next pass at once.
      Atomics.store(this.words, NUM_ARRIVED, 0);
      Atomics.store(this.words, NUM_RELEASED, pass + 1);
    }
    return { pass, isLast };
  }

  outcomeOf(pass: number): PassOutcome {
    if (this.numReleased > pass) return 'released';
    return this.isGivenUp ? 'given-up' : 'waiting';
  }

  /** A rank has waited too long: no later pass will be released to a rank that asks. */
  giveUp(): void {
    Atomics.store(this.words, IS_GIVEN_UP, 1);
  }
}
