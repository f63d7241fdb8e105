/** When the requests of a workload may be submitted. Holds no clock and no cursor: the driver says how far it is. */

import { wholeNumber } from './checks.ts';
import type { Workload } from './workload.ts';

/**
 * `closed`: `concurrency` requests are kept in flight, arrival times are ignored.
 * `open`: a request is submitted when its time has come, however many are in flight.
 */
export type LoopMode = Readonly<{ kind: 'closed'; concurrency: number } | { kind: 'open' }>;

export class Arrivals {
  /** Places in `workload.requests`, in the order of submission. An open loop goes by arrival time, ties by place. */
  readonly order: readonly number[];
  readonly mode: LoopMode;
  readonly #arrivalsMs: readonly number[];

  /** @throws BAD_VALUE if `concurrency` is not a whole number ≥ 1 */
  constructor(workload: Workload, mode: LoopMode) {
    if (mode.kind === 'closed') wholeNumber('concurrency', mode.concurrency, 1);
    this.mode = mode;
    const { requests } = workload;
    const order = requests.map((_, place) => place);
    if (mode.kind === 'open') order.sort((a, b) => requests[a]!.arrivalMs - requests[b]!.arrivalMs || a - b);
    this.order = order;
    this.#arrivalsMs = order.map((place) => requests[place]!.arrivalMs);
  }

  /**
   * How many further requests may be submitted: `order[numSubmitted]` and those behind it.
   *
   * @param numSubmitted requests submitted so far
   * @param elapsedMs since the start of the run
   * @param numInFlight submitted and not yet ended
   */
  numDue(numSubmitted: number, elapsedMs: number, numInFlight: number): number {
    const numLeft = this.order.length - numSubmitted;
    if (this.mode.kind === 'closed') return Math.max(0, Math.min(numLeft, this.mode.concurrency - numInFlight));
    let numDue = 0;
    while (numDue < numLeft && this.#arrivalsMs[numSubmitted + numDue]! <= elapsedMs) numDue++;
    return numDue;
  }

  /**
   * When the next request is due, in ms since the start of the run; `null` if time alone brings none: all are
   * submitted, or a closed loop waits for one to end.
   */
  nextMs(numSubmitted: number): number | null {
    if (this.mode.kind === 'closed') return null;
    return this.#arrivalsMs[numSubmitted] ?? null;
  }
}
