/** Checks of what callers hand over: a name that nothing reads would otherwise go unnoticed in JavaScript. */

import { RoutedExpertsError } from '../contract/errors.ts';

/** Throws BAD_VALUE for what is no object, and UNKNOWN_NAME for a field that is not in `known`. */
export function requireNames(taker: string, given: unknown, known: readonly string[]): void {
  if (typeof given !== 'object' || given === null) {
    const wanted = `an object with any of: ${known.join(', ')}`;
    throw RoutedExpertsError.of('BAD_VALUE', `the object given to ${taker}`, given, wanted);
  }
  for (const name of Object.keys(given))
    if (!known.includes(name)) throw RoutedExpertsError.of('UNKNOWN_NAME', `option of ${taker}`, name, known);
}

/** Throws BAD_VALUE. */
export function requireText(name: string, value: unknown): void {
  if (typeof value !== 'string') throw RoutedExpertsError.of('BAD_VALUE', name, value, 'a text');
}

/** Throws BAD_VALUE. */
export function requireOneOf(name: string, value: unknown, choices: readonly unknown[]): void {
  if (!choices.includes(value)) throw RoutedExpertsError.of('BAD_VALUE', name, value, choices.map(String).join(' or '));
}
