/** What `deltas` does about the rows of tokens that the prefix cache already holds. */

import type { PrefixRows } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';

export type PrefixRowsPolicy = Readonly<{
  /** Rows stay attached to the cached block they belong to, for later requests that hit it. */
  keeps: boolean;
  /** For an opted-in request a hash of which no cached block has rows is a miss, and so is everything behind it. */
  recomputes: boolean;
  summary: string;
}>;

/**
 * The one table of policies. Whatever the policy, a request that did not opt in hits every cached block there is, and
 * one that did looks for a block with rows first.
 *
 *                     rows kept with blocks    where no cached copy has rows
 *     computed-only   no                       hit, its rows are missing      RFC vllm#38079
 *     share           yes                      hit, its rows are missing      vllm#45635, TensorRT-LLM#18397
 *     recompute       no                       miss                           no engine
 *     complete        yes                      miss                           LMDeploy
 *
 * `computed-only` is engine-half.ts, the other policies are prefix-rows/engine-half.ts.
 */
export const prefixRowsPolicies: Readonly<Record<PrefixRows, PrefixRowsPolicy>> = {
  complete: {
    keeps: true,
    recomputes: true,
    summary: 'share, and where a cached block has no rows, recompute: no row is missing',
  },
  share: {
    keeps: true,
    recomputes: false,
    summary: 'rows stay with the cached block and go to each request that hits it',
  },
  recompute: { keeps: false, recomputes: true, summary: 'opted-in requests compute all their rows themselves' },
  'computed-only': { keeps: false, recomputes: false, summary: 'rows of cached tokens are reported missing' },
};

export const DEFAULT_PREFIX_ROWS: PrefixRows = 'complete';

export const prefixRowsNames: readonly PrefixRows[] = Object.keys(prefixRowsPolicies) as PrefixRows[];

/** Throws UNKNOWN_NAME, with the names there are. */
export function prefixRowsByName(name: string): PrefixRows {
  if (Object.hasOwn(prefixRowsPolicies, name)) return name as PrefixRows;
  throw RoutedExpertsError.of('UNKNOWN_NAME', 'prefix-rows policy', name, prefixRowsNames);
}
