/** When the submissions of a queue end whose time is modelled. It knows no clock: it is told what time it is. */

import type { ClockTimes } from '../../../contract/config.ts';
import type { DeadlineCounts } from '../../../contract/device.ts';

/** `passTokens`: of its forward pass, `null` without one. `readbackBytes`: what it copies to the host. */
export type Submission = Readonly<{ submittedAt: number; passTokens: number | null; readbackBytes: number }>;

/** A deadline that is missed by less is kept: the timers of the event loop have a resolution of 1 ms. */
const TOLERANCE_MS = 1;

const NONE: DeadlineCounts = { count: 0, overrun: 0, longestMs: 0 };

/** Times in ms. */
export class QueueClock {
  readonly #times: ClockTimes;
  /** When the queue has done all that was submitted. */
  #freeAt = 0;
  #deadlines: DeadlineCounts = NONE;

  constructor(times: ClockTimes) {
    this.#times = times;
  }

  /** When all that was submitted has run, and its copies can be read. */
  get readableAt(): number {
    return this.#freeAt + this.#times.copyLatencyMs;
  }

  /** Of reads since the last call, or the start. */
  takeDeadlines(): DeadlineCounts {
    const taken = this.#deadlines;
    this.#deadlines = NONE;
    return taken;
  }

  /** A submission begins when it is handed in, and not before the one ahead of it has ended. */
  submit({ submittedAt, passTokens, readbackBytes }: Submission): void {
    const { stepMs, perTokenUs, copyGBPerS } = this.#times;
    const passMs = passTokens === null ? 0 : stepMs + (passTokens * perTokenUs) / 1e3;
    const copyMs = readbackBytes / (copyGBPerS * 1e6);
    this.#freeAt = Math.max(this.#freeAt, submittedAt) + passMs + copyMs;
  }

  /** What was to be read at `deadline` was handed out at `now`. A later end is the queue's: nothing is caught up. */
  handedOut(deadline: number, now: number): void {
    const late = now - deadline;
    const isOverrun = late > TOLERANCE_MS;
    const { count, overrun, longestMs } = this.#deadlines;
    this.#deadlines = {
      count: count + 1,
      overrun: overrun + (isOverrun ? 1 : 0),
      longestMs: isOverrun ? Math.max(longestMs, late) : longestMs,
    };
  }
}
