/** Calls of hooks of a design of the caller's own, and what they do that they may not. */

import type { CaptureLiveCounts } from '../../contract/capture.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';

/** What a hook did that it may not do. */
export class BrokenContract extends Error {}

/** Runs a hook. Throws what it throws, and BrokenContract for a promise: nothing waits for it, or hears it fail. */
export function callHook<T>(call: () => T): T {
  const result: unknown = call();
  if (result instanceof Promise) {
    result.catch(() => {});
    throw new BrokenContract('it returned a promise, and halves are synchronous');
  }
  return result as T;
}

/** What went wrong, as an error that names design and hook. `hook`: `engineHalf.take`. */
export function designFailed(design: string, hook: string, error: unknown): RoutedExpertsError {
  return RoutedExpertsError.of('DESIGN_FAILED', design, hook, problemOf(error));
}

function problemOf(error: unknown): string {
  if (error instanceof BrokenContract) return error.message;
  if (!(error instanceof Error)) return `it threw ${shown(error)}`;
  // The line of the module in which it was thrown, where there is one.
  const place = error.stack?.split('\n').find((line) => line.trimStart().startsWith('at '));
  return `it threw ${error.name}: ${error.message}${place === undefined ? '' : ` ${place.trim()}`}`;
}

/** What a half says that it holds. Throws BrokenContract for what are no counts. */
export function countsOf(half: Readonly<{ liveCounts?: () => CaptureLiveCounts }>): CaptureLiveCounts {
  const counts = half.liveCounts?.() ?? { requests: 0, bytes: 0 };
  if (!(counts instanceof Promise)) checkCounts(counts);
  return counts;
}

/** Throws BrokenContract. */
export function checkCounts(counts: CaptureLiveCounts): void {
  const values: unknown[] = [counts?.requests, counts?.bytes, counts?.cachedBytes ?? 0];
  if (values.every((value) => Number.isFinite(value))) return;
  throw new BrokenContract('it returned no counts; return { requests, bytes }');
}

/** What a half does wrong on its way out concerns no request. */
export function closeQuietly(half: Readonly<{ close?: () => void }> | null): void {
  try {
    if (half !== null) callHook(() => half.close?.());
  } catch {
    // The half is gone, whatever it did.
  }
}

/** A value in a message. Not everything can be made a text. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return `"${value}"`;
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}
