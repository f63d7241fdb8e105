/**
 * What `npm run mutations -- --json FILE` found: defects patched into the source, and the test or command that failed
 * with each.
 */

import { readFileSync } from 'node:fs';
import { RoutedExpertsError } from '../../contract/errors.ts';

export type MutationResult = Readonly<{
  name: string;
  defect: string;
  /** The patched file. */
  file: string;
  /** What was run, as it is typed. */
  command: string;
  killed: boolean;
  /** The test that failed, or how the command ended. */
  how: string;
}>;

const TEXTS = ['name', 'defect', 'file', 'command', 'how'] as const;

/** Throws BAD_FILE. */
export function readMutationResults(file: string): readonly MutationResult[] {
  let found: unknown;
  try {
    found = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', file, `cannot be read: ${(error as Error).message}`);
  }
  if (Array.isArray(found) && found.every(isResult)) return found;
  throw RoutedExpertsError.of('BAD_FILE', file, 'is not what `npm run mutations -- --json FILE` writes');
}

function isResult(value: unknown): value is MutationResult {
  const fields = value as Record<string, unknown> | null;
  return (
    typeof fields === 'object' &&
    fields !== null &&
    TEXTS.every((name) => typeof fields[name] === 'string') &&
    typeof fields['killed'] === 'boolean'
  );
}
