/**
 * Finds the rows of this rank among those that a router saw. A capture hook sits in the router, behind the dispatch
 * that the parallel layout needs: it may see this rank's tokens, every rank's, or a shard of this rank's, with padding
 * in between. Wrong rows, or padding in their place, would go unnoticed (L2, L3), so an unknown layout is an error
 * (L4). After the capture hook of vLLM (`routed_experts_capturer.py`), in our words.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';

/** How a model is spread over ranks. Sizes are ≥ 1; with all sizes 1 a rank has no peers. */
export type HookRanks = Readonly<{
  /** Data-parallel ranks compute requests of their own; they meet in the experts' all-to-all. */
  dataParallelRank: number;
  dataParallelSize: number;
  /** Tensor-parallel ranks compute the same requests; under sequence parallelism each routes a shard of their rows. */
  tensorParallelSize: number;
  isSequenceParallel: boolean;
}>;

export type HookStep = Readonly<{
  /** n: rows that the router saw in this rank. */
  numRowsSeen: number;
  /**
   * Rows that each data-parallel rank runs in the step, with the padding to the shape of a captured graph.
   */
  rowsPerRank: readonly number[];
  /** t: real tokens of this rank, the first of its rows. */
  numTokens: number;
}>;

/**
 * `slice`: the rank's rows are `[firstRow, firstRow + numTokens)` of those seen. `all-gather`: they are the first
 * `numTokens` of the rows of all tensor-parallel ranks, one shard behind the other; a rank alone does not have them.
 */
export type HookRows = Readonly<{ kind: 'slice' | 'all-gather'; firstRow: number; numTokens: number }>;

/** A worker without parallel peers. */
export const SINGLE_RANK: HookRanks = {
  dataParallelRank: 0,
  dataParallelSize: 1,
  tensorParallelSize: 1,
  isSequenceParallel: false,
};

/**
 *     layout                                n = rows seen                      rows of this rank
 *     one data-parallel rank                own rows                           from 0
 *     data parallel, naive dispatch         sum of all ranks' rows             from the sum of the ranks before
 *     data parallel, modular kernel         own rows                           from 0
 *     … naive, sequence parallel            sum of all ranks' padded shards    from this rank's first shard
 *     … modular, sequence parallel          one shard, ⌈own / tp⌉              all-gather, then from 0
 *
 * Under sequence parallelism a rank's rows are cut into `tp` shards of ⌈rows / tp⌉, the last ones padded. Throws
 * INVARIANT for any other n.
 */
export function rowsOfRank(ranks: HookRanks, step: HookStep): HookRows {
  const { dataParallelRank: rank, dataParallelSize, tensorParallelSize, isSequenceParallel } = ranks;
  const { numRowsSeen, rowsPerRank, numTokens } = step;
  const own = rowsPerRank[rank] ?? -1;
  if (rowsPerRank.length !== dataParallelSize || numTokens > own) throw unknownLayout(ranks, step);

  const shard = (rows: number): number => Math.ceil(rows / tensorParallelSize);
  const dispatched = (rows: number): number => (isSequenceParallel ? shard(rows) * tensorParallelSize : rows);
  const isOneShard = isSequenceParallel && tensorParallelSize > 1 && numRowsSeen === shard(own);
  if (isOneShard) return { kind: 'all-gather', firstRow: 0, numTokens };

  let before = 0;
  let total = 0;
  for (const [i, rows] of rowsPerRank.entries()) {
    if (i < rank) before += dispatched(rows);
    total += dispatched(rows);
  }
  if (numRowsSeen === total) return { kind: 'slice', firstRow: before, numTokens };
  if (numRowsSeen === own && !isSequenceParallel) return { kind: 'slice', firstRow: 0, numTokens };
  throw unknownLayout(ranks, step);
}

function unknownLayout(ranks: HookRanks, { numRowsSeen, rowsPerRank, numTokens }: HookStep): RoutedExpertsError {
  const { dataParallelRank, dataParallelSize, tensorParallelSize, isSequenceParallel } = ranks;
  const where = `data-parallel rank ${dataParallelRank} of ${dataParallelSize} (rows ${rowsPerRank.join(', ')})`;
  const how = `tensor parallel ${tensorParallelSize}${isSequenceParallel ? ', sequence parallel' : ''}`;
  return RoutedExpertsError.of(
    'INVARIANT',
    `the router saw ${numRowsSeen} rows for ${numTokens} tokens on ${where}, ${how}: no known layout of rows`,
  );
}
