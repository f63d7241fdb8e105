/** The kinds of campaigns there are, each loaded when it is asked for. */

import { RoutedExpertsError } from '../contract/errors.ts';
import type { AnyKind } from './campaign/core/kind.ts';

const kinds: Readonly<Record<string, () => Promise<AnyKind>>> = {
  bench: async () => (await import('./bench/sweep/sweep-kind.ts')).sweepKind,
  fuzz: async () => (await import('./fuzz/fuzz-kind.ts')).fuzzKind,
  matrix: async () => (await import('./fuzz/matrix-kind.ts')).matrixKind,
};

/** Rejects with UNKNOWN_NAME. */
export async function campaignKind(name: string): Promise<AnyKind> {
  if (Object.hasOwn(kinds, name)) return kinds[name]!();
  throw RoutedExpertsError.of('UNKNOWN_NAME', 'kind of campaign', name, Object.keys(kinds));
}
