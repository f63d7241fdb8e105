/** Counts the choices that are being served, and decides whether more may come. */

import { HttpError } from './http-error.ts';

/**
 * A choice holds a place from its admission until its answer is written or its client is gone. So a client that does
 * not read takes a place, and not ever more of the server's memory. Invariant: 0 ≤ places taken ≤ limit.
 */
export class Admission {
  readonly limit: number;
  #taken = 0;
  #isDraining = false;
  #onEmpty: (() => void) | null = null;

  constructor(limit: number) {
    this.limit = limit;
  }

  get taken(): number {
    return this.#taken;
  }

  get isDraining(): boolean {
    return this.#isDraining;
  }

  /**
   * Takes `count` places and returns the function that gives them back, once. Throws DRAINING, TOO_MANY_CHOICES,
   * OVERLOADED.
   */
  admit(count: number): () => void {
    if (this.#isDraining) throw HttpError.of('DRAINING', null);
    if (count > this.limit) throw HttpError.of('TOO_MANY_CHOICES', 'n', count, this.limit);
    if (this.#taken + count > this.limit) throw HttpError.of('OVERLOADED', null, this.limit);
    this.#taken += count;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#taken -= count;
      if (this.#taken === 0) this.#onEmpty?.();
    };
  }

  /** Admits no more choices. Resolves once every place is given back. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    if (this.#taken > 0) await new Promise<void>((resolve) => (this.#onEmpty = resolve));
  }
}
