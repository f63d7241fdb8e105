/** A scenario on its way to a file and back: what `fuzz` saves and runs again. */

import { RoutedExpertsError } from '../contract/errors.ts';
import { parseScenario, type Scenario } from './scenario.ts';
import type { LawName } from './laws/violation.ts';

/** A scenario with the design that it is for. */
export type SavedCase = Readonly<{
  /** The name of a `TestedDesign`. */
  design: string;
  /** What it broke when it was saved; `null`: nothing, it must stay so. */
  law: LawName | null;
  note: string;
  scenario: Scenario;
}>;

/** The seed bank: cases that broke something once. */
export function writeCase(saved: SavedCase): string {
  return `${JSON.stringify(saved, null, 1)}\n`;
}

/** Throws BAD_FILE, with the file's name, for anything that `writeCase` does not write. */
export function readCase(text: string, file: string): SavedCase {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', file, (error as Error).message);
  }
  const { design, law, note, scenario } = (value ?? {}) as Partial<SavedCase>;
  if (typeof design !== 'string' || scenario === undefined) {
    throw RoutedExpertsError.of('BAD_FILE', file, 'is no saved case: "design" or "scenario" is absent');
  }
  return { design, law: law ?? null, note: note ?? '', scenario: parseScenario(JSON.stringify(scenario), file) };
}
