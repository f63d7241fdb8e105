/** How the rows of all data-parallel engines lie before the router of one of them, under each dispatch. */

import type { Dispatch, EngineConfig } from '../../contract/config.ts';
import type { HookRanks } from './hook-layout.ts';

/** Where a rank stands among the engines, and what its router sees of theirs. */
export type HookPlace = Readonly<{
  ranks: HookRanks;
  dispatch: Dispatch;
  /** Of `modular-shards`: the design captures rows that nobody asked for. */
  capturesAll?: boolean;
}>;

/** Rows that the router sees before and behind the rank's own: those of other engines, and padding. */
export type OtherRows = Readonly<{ before: number; behind: number }>;

/**
 *     modular         [ own ]
 *     naive           [ engine 0 ][ own ][ engine 2 ]
 *     naive-shards    [ engine 0 ··][ own ··][ engine 2 ·]      each padded to shards of its tensor-parallel ranks
 *     modular-shards  [ ow ] in one rank, [ n· ] in the next    the router sees fewer than the engine runs
 */
export function otherRows({ ranks, dispatch }: HookPlace, rowsOfEngines: readonly number[]): OtherRows {
  if (dispatch === 'modular' || dispatch === 'modular-shards') return { before: 0, behind: 0 };
  const { dataParallelRank: own, tensorParallelSize } = ranks;
  const shard = dispatch === 'naive' ? 1 : tensorParallelSize;
  const padded = rowsOfEngines.map((rows) => Math.ceil(rows / shard) * shard);
  const before = sum(padded.slice(0, own));
  return { before, behind: sum(padded) - before - rowsOfEngines[own]! };
}

/** What the router of one rank sees of `numRows` that the rank runs, other engines' and padding among them. */
export function rowsSeen({ ranks, dispatch }: HookPlace, numRows: number): number {
  return dispatch === 'modular-shards' ? Math.ceil(numRows / ranks.tensorParallelSize) : numRows;
}

function sum(sizes: readonly number[]): number {
  return sizes.reduce((a, b) => a + b, 0);
}

/**
 * The engine's sizes with room for what the router sees. Rows that are not the rank's own stand in requests of a block
 * at most, which read no further than that.
 */
export function roomForAll(engine: EngineConfig, { ranks, dispatch }: HookPlace): EngineConfig {
  if (dispatch === 'modular' || dispatch === 'modular-shards') return engine;
  const { maxNumBatchedTokens, maxNumSeqs, blockSize } = engine;
  const rows = ranks.dataParallelSize * (maxNumBatchedTokens + ranks.tensorParallelSize);
  return { ...engine, maxNumBatchedTokens: rows, maxNumSeqs: maxNumSeqs + 2 + Math.ceil(rows / blockSize) };
}
