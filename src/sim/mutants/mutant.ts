/** A known defect as a small patch. */

import type { Mutation } from '../tested-design.ts';

export type Mutant = Readonly<{
  /** Its number in the list of known defects. */
  number: number;
  name: string;
  defect: string;
  /** Where the defect was found. */
  source: string;
  /** The name of the tested design that is changed. */
  base: string;
  mutation: Mutation;
}>;
