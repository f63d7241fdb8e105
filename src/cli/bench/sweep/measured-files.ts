/** The files that a bench reads, by their digests, so that two machines measure the same. */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import { isDesignModule } from '../../../worker/design-module.ts';
import type { Flags } from '../settings.ts';

/** The digest of each file, by its path. */
export type FileDigests = Readonly<Record<string, string>>;

/** Throws BAD_FILE. What a module of a design imports is not looked at. */
export function digestsOfFiles({
  design,
  trace,
  recording,
}: Pick<Flags, 'design' | 'trace' | 'recording'>): FileDigests {
  const modules = design.filter(isDesignModule).map((url) => fileURLToPath(url));
  const files = [...modules, trace, recording].filter((file) => file !== undefined);
  return Object.fromEntries(files.map((file) => [file, digestOf(file)]));
}

/** Throws BAD_FILE where a file is absent, or is not the one that the campaign began with. */
export function checkFiles(files: FileDigests): void {
  for (const [file, digest] of Object.entries(files)) {
    const found = digestOf(file);
    if (found === digest) continue;
    const problem = `its digest is ${found}, the campaign's is ${digest}; bring the file that the campaign began with`;
    throw RoutedExpertsError.of('BAD_FILE', file, problem);
  }
}

function digestOf(file: string): string {
  try {
    return createHash('sha256').update(readFileSync(file)).digest('hex').slice(0, 16);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', file, `cannot be read: ${(error as Error).message}`);
  }
}
