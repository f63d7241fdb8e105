/** Receives every broken promise and decides whether the run goes on. */

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

  /** Something is wrong. Returns if the design has given up this law, else throws. */
  wrong(law: LawName, what: string): void {
    if (!this.#given.has(law)) throw new Violation('wrong', law, this.step, what);
    this.count(law);
  }

  /** Nothing moves any more. Throws `DeclaredStall` if the design has given up this law, else the violation. */
  stall(law: LawName, what: string): never {
    if (!this.#given.has(law)) throw new Violation('stall', law, this.step, what);
    this.count(law);
    throw new DeclaredStall(what);
  }

  /** Returns whether a gap excuses a missing row of this kind, and counts it. */
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

/** The run cannot go on, and the design has declared this. */
export class DeclaredStall extends Error {}
