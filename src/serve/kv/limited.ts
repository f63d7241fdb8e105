/** So many at once, in the order in which they came. */

type Waiting = () => void;

/** Invariant: at most `limit` works are under way, and none waits while fewer are. */
export class Limited {
  readonly #limit: number;
  #numRunning = 0;
  readonly #waiting: Waiting[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#numRunning >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#numRunning++;
    try {
      return await work();
    } finally {
      // The work that waits takes over the place: no work that comes in between can.
      const next = this.#waiting.shift();
      if (next === undefined) this.#numRunning--;
      else next();
    }
  }
}
