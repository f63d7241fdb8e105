/** How many choices are being served, and whether more may come. */

import { HttpError } from './http-error.ts';

/**
 * A place is taken per choice from its admission until its answer is written or its client gone, so that a client who
 * does not read uses up the server's patience, not its memory. Invariant: 0 ≤ places taken ≤ limit.
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

  /** Takes `count` places and answers how to give them back, once. Throws DRAINING, TOO_MANY_CHOICES, OVERLOADED. */
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

  /** Nobody is admitted any more. Resolves once every place is given back. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    if (this.#taken > 0) await new Promise<void>((resolve) => (this.#onEmpty = resolve));
  }
}
