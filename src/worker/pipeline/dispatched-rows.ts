/** How the rows of all data-parallel engines lie before the router of one of them, under each dispatch. */

import type { Dispatch, EngineConfig } from '../../contract/config.ts';
import type { HookRanks } from './hook-layout.ts';

/** Where a rank stands among the engines, and what its router sees of theirs. */
export type HookPlace = Readonly<{ ranks: HookRanks; dispatch: Dispatch }>;

/** Rows that the router sees before and behind the rank's own: those of other engines, and padding. */
export type OtherRows = Readonly<{ before: number; behind: number }>;

/**
 *     modular         [ own ]
 *     naive           [ engine 0 ][ own ][ engine 2 ]
 *     naive-shards    [ engine 0 ··][ own ··][ engine 2 ·]      each padded to shards of its tensor-parallel ranks
 */
export function otherRows({ ranks, dispatch }: HookPlace, rowsOfEngines: readonly number[]): OtherRows {
  if (dispatch === 'modular') return { before: 0, behind: 0 };
  const { dataParallelRank: own, tensorParallelSize } = ranks;
  const shard = dispatch === 'naive' ? 1 : tensorParallelSize;
  const padded = rowsOfEngines.map((rows) => Math.ceil(rows / shard) * shard);
  const before = sum(padded.slice(0, own));
  return { before, behind: sum(padded) - before - rowsOfEngines[own]! };
}

function sum(sizes: readonly number[]): number {
  return sizes.reduce((a, b) => a + b, 0);
}

/**
 * The engine's sizes with room for what the router sees. Rows that are not the rank's own stand in requests of a block
 * at most, which read no further than that.
 */
export function roomForAll(engine: EngineConfig, { ranks, dispatch }: HookPlace): EngineConfig {
  if (dispatch === 'modular') return engine;
  const { maxNumBatchedTokens, maxNumSeqs, blockSize } = engine;
  const rows = ranks.dataParallelSize * (maxNumBatchedTokens + ranks.tensorParallelSize);
  return { ...engine, maxNumBatchedTokens: rows, maxNumSeqs: maxNumSeqs + 2 + Math.ceil(rows / blockSize) };
}
