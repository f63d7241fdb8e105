/** Whether two machines have the same module of a design that is not built in. */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { designReference, isDesignModule } from '../../worker/design-module.ts';
import { loadDesigns } from './loaded-designs.ts';

/** The digest of each design's module, by the path that was given. */
export type ModuleDigests = Readonly<Record<string, string>>;

/** Of the designs that are modules. What such a module imports is not looked at. */
export function digestsOf(designs: readonly string[]): ModuleDigests {
  return Object.fromEntries(designs.filter(isDesignModule).map((design) => [design, digestOf(design)]));
}

/** Loads the designs. Rejects with BAD_DESIGN where a module is absent, or is not the one with this digest. */
export async function loadSameDesigns(designs: readonly string[], modules: ModuleDigests): Promise<void> {
  for (const [design, digest] of Object.entries(modules)) checkDigest(design, digest);
  await loadDesigns(designs);
}

/** Throws BAD_DESIGN. */
export function checkDigest(design: string, digest: string): void {
  const found = digestOf(design);
  if (found === digest) return;
  const problem = `its digest is ${found}, the campaign's is ${digest}; bring the file that the campaign began with`;
  throw RoutedExpertsError.of('BAD_DESIGN', design, problem);
}

function digestOf(design: string): string {
  try {
    const text = readFileSync(fileURLToPath(designReference(design)));
    return createHash('sha256').update(text).digest('hex').slice(0, 16);
  } catch (error) {
    if (error instanceof RoutedExpertsError) throw error;
    throw RoutedExpertsError.of('BAD_DESIGN', design, `it cannot be read: ${(error as Error).message}`);
  }
}
