/** When a look for the end of a read can be worth it, from how long the reads before it took. Times in ms. */

/** What is done in less is waited for without a rest. */
const BUSY_MS = 1;
/** Between two looks at a read that may end at any moment; with the timers of Linux 0.1 ms. */
const SHORT_REST_MS = 0.05;
/** The longest that a thread does not hear what is sent to it. */
const LONG_REST_MS = 1;
/** Of what the shortest read took lately: before that none is expected to end. */
const SURE_SHARE = 0.8;
/** Reads that "lately" means. */
const NUM_REMEMBERED = 8;

/**
 * The device runs one submission after the other, so a read takes its time from its begin or, if later, from the end of
 * the read before it. Of several pending reads the oldest ends first.
 *
 *     began   busy        long rests         short rests   ended
 *     ├───────┼──────────────────────────────┼─────────────┤
 *     0       1 ms             0.8 × the shortest read lately
 */
export class LookTimes {
  readonly #pending: number[] = [];
  /** What the reads took that ended lately. */
  readonly #lately: number[] = [];
  #endedAt = -Infinity;
  #busyUntil = -Infinity;

  began(now: number): void {
    this.#pending.push(now);
    this.#busyUntil = now + BUSY_MS;
  }

  /** The oldest read has ended, or failed. */
  ended(now: number): void {
    const began = this.#pending.shift();
    if (began === undefined) return;
    if (this.#lately.length === NUM_REMEMBERED) this.#lately.shift();
    this.#lately.push(now - Math.max(began, this.#endedAt));
    this.#endedAt = now;
  }

  /** How long to rest before the next look; 0 = not at all. */
  restBefore(now: number): number {
    if (now <= this.#busyUntil) return 0;
    const oldest = this.#pending[0];
    if (oldest === undefined || this.#lately.length === 0) return SHORT_REST_MS;
    const sureUntil = Math.max(oldest, this.#endedAt) + SURE_SHARE * Math.min(...this.#lately);
    return Math.min(LONG_REST_MS, Math.max(SHORT_REST_MS, sureUntil - now));
  }
}
