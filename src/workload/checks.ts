/**
 * Checks of numeric options: each throws BAD_VALUE with the option's name, its value and what it may be. And how a bad
 * value is shown.
 */

import { RoutedExpertsError } from '../contract/errors.ts';

/**
 * The most prompt tokens of one workload: 1 GiB of token ids. All prompts are made and held in memory beforehand, so
 * that making them costs nothing while a run is timed.
 */
export const MAX_PROMPT_TOKENS: number = 2 ** 28;

/** The most requests of one workload. */
export const MAX_REQUESTS: number = 1_000_000;

/** Returns `value`, a whole number in `[min, max]`. */
export function wholeNumber(name: string, value: number, min: number, max: number = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    const wanted = max === Number.MAX_SAFE_INTEGER ? `a whole number ≥ ${min}` : `a whole number from ${min} to ${max}`;
    throw RoutedExpertsError.of('BAD_VALUE', name, value, wanted);
  }
  return value;
}

/** Returns `value`, a finite number in `[min, max]`. */
export function numberWithin(name: string, value: number, min: number, max: number = Infinity): number {
  if (!Number.isFinite(value) || value < min || value > max) {
    const wanted = max === Infinity ? `a finite number ≥ ${min}` : `a number from ${min} to ${max}`;
    throw RoutedExpertsError.of('BAD_VALUE', name, value, wanted);
  }
  return value;
}

/** Returns `value`, a finite number > 0. */
export function positiveNumber(name: string, value: number): number {
  if (!Number.isFinite(value) || value <= 0)
    throw RoutedExpertsError.of('BAD_VALUE', name, value, 'a finite number > 0');
  return value;
}

/** Returns `value`, a seed: any whole number from 0 that a double holds exactly. */
export function seedNumber(value: number): number {
  return wholeNumber('seed', value, 0);
}

/** Returns `value`, a vocabulary size. The largest u32 stays free: it is `PLACEHOLDER_TOKEN`. */
export function vocabularySize(value: number): number {
  return wholeNumber('vocabSize', value, 2, 0xffff_ffff);
}

/**
 * Shows any JSON value in few characters on one line. Control characters are escaped, since a terminal may show it.
 */
export function show(value: unknown): string {
  const json = JSON.stringify(value);
  return json.length > 60 ? `${json.slice(0, 60)}…` : json;
}
