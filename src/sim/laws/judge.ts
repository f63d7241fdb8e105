/** Hears of every broken promise and says whether the run goes on. */

import type { DeclaredGap } from '../../capture/designs.ts';
import { Violation, type LawName } from './violation.ts';

/**
 * A law that the design gives up by declaration is counted and the run goes on, so that what it does *not* give up
 * stays checked. Any other broken promise ends the run.
 */
export class Judge {
  /** How often each declared gap showed. */
  readonly declared: Map<LawName, number> = new Map();
  /** The step begun last. */
  step = -1;
  readonly #gaps: readonly DeclaredGap[];
  readonly #given: ReadonlySet<LawName>;

  constructor(gaps: readonly DeclaredGap[]) {
    this.#gaps = gaps;
    // A gap about missing rows excuses those rows and nothing else.
    this.#given = new Set(gaps.filter(({ missing }) => missing === undefined).map(({ law }) => law as LawName));
  }

  /** A wrong answer. Returns if the design has given up this law. */
  wrong(law: LawName, what: string): void {
    if (!this.#given.has(law)) throw new Violation('wrong', law, this.step, what);
    this.count(law);
  }

  /** Nothing moves any more. Never returns: a declared stall ends the run as well, which is then `DeclaredStall`. */
  stall(law: LawName, what: string): never {
    if (!this.#given.has(law)) throw new Violation('stall', law, this.step, what);
    this.count(law);
    throw new DeclaredStall(what);
  }

  /** Whether a gap excuses a missing row of this kind; it is counted then. */
  excuses(missing: DeclaredGap['missing']): boolean {
    for (const gap of this.#gaps) {
      if (gap.missing === undefined || (gap.missing !== missing && gap.missing !== 'all')) continue;
      this.count(gap.law as LawName);
      return true;
    }
    return false;
  }

  count(law: LawName): void {
    this.declared.set(law, (this.declared.get(law) ?? 0) + 1);
  }
}

/** The run cannot go on, in a way that the design has declared. */
export class DeclaredStall extends Error {}
