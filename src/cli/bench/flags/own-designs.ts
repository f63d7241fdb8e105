/** The designs that a bench compares: built in, or modules of the caller's own. */

import type { DesignReference } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import { isDesignModule, loadDesign } from '../../../worker/design-module.ts';
import type { BenchOptions, OwnDesign } from '../bench-options.ts';

/** Throws BAD_DESIGN, also for two modules that export designs of one name. */
export async function loadDesigns(
  references: readonly DesignReference[],
): Promise<Pick<BenchOptions, 'designs' | 'ownDesigns'>> {
  const designs: string[] = [];
  const ownDesigns: Record<string, OwnDesign> = {};
  for (const reference of new Set(references)) {
    const { name, gaps } = await loadDesign(reference);
    if (Object.hasOwn(ownDesigns, name)) {
      throw RoutedExpertsError.of(
        'BAD_DESIGN',
        reference,
        `its name, "${name}", is that of ${ownDesigns[name]!.module}`,
      );
    }
    designs.push(name);
    if (isDesignModule(reference)) ownDesigns[name] = { module: reference, gaps };
  }
  return Object.keys(ownDesigns).length === 0 ? { designs } : { designs, ownDesigns };
}
