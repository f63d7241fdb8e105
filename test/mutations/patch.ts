import { stripTypeScriptTypes } from 'node:module';
import type { SourceMutation } from './source-mutation.ts';

/** The file's text with the defect. Throws unless `find` occurs exactly once and the result still parses. */
export function patchedText(text: string, { name, file, find, replace }: SourceMutation): string {
  const count = text.split(find).length - 1;
  if (count !== 1) throw new Error(`mutation "${name}": its text to find occurs ${count} times in ${file}, not once`);
  const patched = text.replace(find, () => replace);
  if (patched === text) throw new Error(`mutation "${name}" changes nothing in ${file}`);
  if (file.endsWith('.ts')) {
    try {
      stripTypeScriptTypes(patched);
    } catch (error) {
      throw new Error(`mutation "${name}": ${file} does not parse with it: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
  return patched;
}
