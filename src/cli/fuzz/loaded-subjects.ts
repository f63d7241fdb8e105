/** Subjects by name, those among them that modules of the caller's own export: loaded once in each thread. */

import { findSubject } from '../../sim/mutants/mutants.ts';
import { subjectOf, type Subject } from '../../sim/subject.ts';
import { designReference, importDesign, isDesignModule } from '../../worker/design-module.ts';

/** By the name with which each was asked for: `./mine.ts`. */
const ownSubjects: Map<string, Subject> = new Map();

/** Imports what `loadedSubject` is to find. Rejects with BAD_DESIGN. */
export async function loadSubjects(names: readonly string[]): Promise<void> {
  for (const name of names) {
    if (!isDesignModule(name) || ownSubjects.has(name)) continue;
    const design = await importDesign(designReference(name));
    ownSubjects.set(name, { ...subjectOf(design), name });
  }
}

/** Throws UNKNOWN_NAME for a name that is no module's and that there is not. */
export function loadedSubject(name: string): Subject {
  return ownSubjects.get(name) ?? findSubject(name);
}
