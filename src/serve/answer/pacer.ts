/**
 * Holds outputs back, so that tokens come when a slower engine would have them. What the engine itself has late stays
 * late, and blocks and places in the batch are free when the engine is done with them, not when the client is.
 */

import { scramble } from '../../kernels/model/mix/mix.ts';

/** In ms. Each time is multiplied by a factor in `[1 − jitter, 1 + jitter]`, drawn from the seed. */
export type PaceOptions = Readonly<{
  timeToFirstTokenMs: number;
  interTokenMs: number;
  jitter: number;
  seed: number;
}>;

/** An output on its way; `isUrgent`: it ends its request before its time. */
type Held = Readonly<{ numTokens: number; isUrgent: boolean; isLast: boolean; hand: () => void }>;

type Paced = {
  /** In the order of arrival. */
  readonly number: number;
  readonly queue: Held[];
  /** When the output before went out, or the request came. */
  since: number;
  numHanded: number;
  timer: ReturnType<typeof setTimeout> | null;
};

export class Pacer {
  readonly #options: PaceOptions;
  readonly #requests = new Map<string, Paced>();
  #numRequests = 0;

  constructor(options: PaceOptions) {
    this.#options = options;
  }

  /** A request goes to the engine. */
  begin(requestId: string): void {
    const number = this.#numRequests++;
    this.#requests.set(requestId, { number, queue: [], since: performance.now(), numHanded: 0, timer: null });
  }

  /** Calls `held.hand` when it is time, in the order of the calls of one request. */
  hold(requestId: string, held: Held): void {
    const paced = this.#requests.get(requestId);
    if (paced === undefined) {
      held.hand();
      return;
    }
    paced.queue.push(held);
    if (held.isUrgent) this.flush([requestId]);
    else if (paced.timer === null) this.#next(requestId, paced);
  }

  /** Hands out at once what is held back. */
  flush(requestIds: Iterable<string>): void {
    for (const requestId of requestIds) {
      const paced = this.#requests.get(requestId);
      if (paced === undefined) continue;
      if (paced.timer !== null) clearTimeout(paced.timer);
      paced.timer = null;
      while (paced.queue.length > 0) this.#hand(requestId, paced);
    }
  }

  flushAll(): void {
    this.flush([...this.#requests.keys()]);
  }

  #next(requestId: string, paced: Paced): void {
    while (paced.queue.length > 0) {
      const left = paced.since + this.#delayMs(paced) - performance.now();
      if (left > 0) {
        paced.timer = setTimeout(() => {
          paced.timer = null;
          this.#hand(requestId, paced);
          this.#next(requestId, paced);
        }, left);
        return;
      }
      this.#hand(requestId, paced);
    }
  }

  #delayMs({ number, numHanded, queue }: Paced): number {
    const { timeToFirstTokenMs, interTokenMs, jitter, seed } = this.#options;
    const dice = (scramble(scramble(seed ^ Math.imul(number, 0x9e3779b1)) + numHanded) >>> 0) / 2 ** 32;
    const base = numHanded === 0 ? timeToFirstTokenMs : interTokenMs * queue[0]!.numTokens;
    return base * (1 + jitter * (2 * dice - 1));
  }

  #hand(requestId: string, paced: Paced): void {
    const { numTokens, isLast, hand } = paced.queue.shift()!;
    paced.since = performance.now();
    paced.numHanded += numTokens;
    if (isLast) this.#requests.delete(requestId);
    hand();
  }
}
