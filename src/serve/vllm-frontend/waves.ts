/**
 * The wave of a data-parallel engine, as vLLM's coordinator counts them: a wave begins with a request to engines that
 * are all idle, and ends when all are idle again. Engines whose ranks meet in collectives run a wave together. An
 * engine that is alone runs whatever it has; it follows the count, so that the coordinator and the other engines can.
 * It never says that a wave is complete: that takes knowing of all others that they are idle.
 */
export class Waves {
  readonly #engineIndex: number;
  #current = 0;
  #isRunning = false;

  constructor(engineIndex: number) {
    this.#engineIndex = engineIndex;
  }

  get current(): number {
    return this.#current;
  }

  /**
   * A request of `wave` has come. Returns the wave that the coordinator is to start, or `null`: a request of a wave
   * that is over wakes this engine only.
   */
  onRequest(wave: number, { isPaused }: Readonly<{ isPaused: boolean }>): number | null {
    const isOver = wave < this.#current;
    this.#current = Math.max(this.#current, wave);
    if (!isOver || this.#isRunning || isPaused) return null;
    this.#isRunning = true;
    return this.#current;
  }

  /** The coordinator starts a wave, for all engines but `excluded`. */
  onStart(wave: number, excluded: number | null): void {
    if (excluded === this.#engineIndex || wave < this.#current) return;
    this.#current = wave;
    this.#isRunning = true;
  }

  /** The engine has nothing left to run. */
  onIdle(): void {
    this.#isRunning = false;
  }
}
