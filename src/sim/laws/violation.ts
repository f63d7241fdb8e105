/** A broken promise. */

/** The number of a law. */
export type LawName = 'L1' | 'L2' | 'L3' | 'L4' | 'L5' | 'L6' | 'L7' | 'L8' | 'L9' | 'L10';

/** All laws; docs/architecture.md says what each promises. */
export const LAWS: readonly LawName[] = ['L1', 'L2', 'L3', 'L4', 'L5', 'L6', 'L7', 'L8', 'L9', 'L10'];

/** `wrong`: a wrong answer. `stall`: nothing moves any more. `crash`: the code under test threw. */
export type ViolationKind = 'wrong' | 'stall' | 'crash';

/** Thrown where a promise was found broken: it ends the run. */
export class Violation extends Error {
  readonly kind: ViolationKind;
  readonly law: LawName;
  /** The step begun last. */
  readonly step: number;

  constructor(kind: ViolationKind, law: LawName, step: number, what: string, cause?: unknown) {
    super(what, cause === undefined ? undefined : { cause });
    this.name = 'Violation';
    this.kind = kind;
    this.law = law;
    this.step = step;
  }
}
