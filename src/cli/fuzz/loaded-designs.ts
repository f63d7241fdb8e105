/** Tested designs by name, those among them that modules of the caller's own export: loaded once in each thread. */

import { findTestedDesign } from '../../sim/mutants/mutants.ts';
import { testedDesignOf, type TestedDesign } from '../../sim/tested-design.ts';
import { designReference, importDesign, isDesignModule } from '../../worker/design-module.ts';

/** By the name with which each was asked for: `./mine.ts`. */
const ownDesigns: Map<string, TestedDesign> = new Map();

/** Imports what `loadedDesign` is to find. Rejects with BAD_DESIGN. */
export async function loadDesigns(names: readonly string[]): Promise<void> {
  for (const name of names) {
    if (!isDesignModule(name) || ownDesigns.has(name)) continue;
    const design = await importDesign(designReference(name));
    ownDesigns.set(name, { ...testedDesignOf(design), name });
  }
}

/** Throws UNKNOWN_NAME for a name that is no module's and that there is not. */
export function loadedDesign(name: string): TestedDesign {
  return ownDesigns.get(name) ?? findTestedDesign(name);
}
