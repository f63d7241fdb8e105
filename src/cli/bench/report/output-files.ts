/** The files that a bench writes. */

import { writeFileSync } from 'node:fs';
import { RoutedExpertsError } from '../../../contract/errors.ts';

export type OutputFiles = Readonly<{ json?: string | undefined; csv?: string | undefined }>;

/** A run of minutes must not end with a file that cannot be written. Throws BAD_FILE. */
export function checkOutputs({ json, csv }: OutputFiles): void {
  if (json !== undefined) write(json, 'null\n');
  if (csv !== undefined) write(csv, '');
}

/** Throws BAD_FILE. */
export function writeOutputs({ json, csv }: OutputFiles, content: Readonly<{ json: unknown; csv: string }>): void {
  if (json !== undefined) write(json, `${JSON.stringify(content.json, null, 2)}\n`);
  if (csv !== undefined) write(csv, content.csv);
}

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', file, `cannot be written: ${(error as Error).message}`);
  }
}
