/** A known defect, as a small patch of a design or of what is around it. */

import type { DeclaredGap } from '../../capture/designs.ts';
import type { Mutation } from '../subject.ts';

export type Mutant = Readonly<{
  /** In the list of known defects. */
  number: number;
  name: string;
  defect: string;
  /** Where it was found. */
  source: string;
  /** The subject that is changed. */
  base: string;
  mutation: Mutation;
  /** Whether a declared gap of the base stays declared; absent = all do. */
  keepsGap?: (gap: DeclaredGap) => boolean;
}>;
