/** What one rank's passes took, and how long it waited for the others. Knows no clock: times are given, in ms. */

export type RankPasses = Readonly<{
  /** Of each pass, in order: until its release, from the later of its arrival in the rank and the release before it. */
  stepMs: readonly number[];
  /** Of each pass: from its end to its release, that is, for the slowest rank. */
  waitMs: readonly number[];
  /** Tokens of each pass. */
  numTokens: readonly number[];
  /** Passes that this rank was the last to end. */
  numLast: number;
}>;

export type PassTime = Readonly<{
  numTokens: number;
  acceptedAt: number;
  arrivedAt: number;
  releasedAt: number;
  isLast: boolean;
}>;

export class PassTimes {
  #stepMs: number[] = [];
  #waitMs: number[] = [];
  #numTokens: number[] = [];
  #numLast = 0;
  #lastReleasedAt = 0;

  add({ numTokens, acceptedAt, arrivedAt, releasedAt, isLast }: PassTime): void {
    this.#stepMs.push(releasedAt - Math.max(acceptedAt, this.#lastReleasedAt));
    this.#waitMs.push(releasedAt - arrivedAt);
    this.#numTokens.push(numTokens);
    if (isLast) this.#numLast++;
    this.#lastReleasedAt = releasedAt;
  }

  /** Since the last call. */
  take(): RankPasses {
    const passes = { stepMs: this.#stepMs, waitMs: this.#waitMs, numTokens: this.#numTokens, numLast: this.#numLast };
    this.#stepMs = [];
    this.#waitMs = [];
    this.#numTokens = [];
    this.#numLast = 0;
    return passes;
  }
}
