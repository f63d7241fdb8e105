/** Ranks whose passes end together: where they meet, and what each of them does. */

import { ActivityBoard } from './activity-board.ts';
import { EnginePasses } from './engine-passes.ts';
import { LockstepBarrier } from './lockstep-barrier.ts';
import type { RankGrid } from './rank-grid.ts';
import { ShardExchange } from './shard-exchange.ts';

/**
 *     before a pass   `sizes`: each rank says how many rows it runs, and hears it of the others (data parallel only)
 *     after it        `passes`
 *
 * Memory: both barriers, the rows of each rank, the passes that engines owe, the board, the shards of rows.
 */
export class LockstepGroup {
  readonly grid: RankGrid;
  readonly sizes: LockstepBarrier;
  readonly passes: LockstepBarrier;
  readonly board: ActivityBoard;
  readonly shards: ShardExchange;
  readonly #rows: Int32Array;
  readonly #engineWords: Int32Array;

  /** `words`: `numWords` of them, zeros at first. `shardWords`: the most that a rank routes alone, in words. */
  constructor(grid: RankGrid, words: Int32Array, shardWords = 0) {
    const { numRanks, sizes } = grid;
    let at = 0;
    const take = (length: number): Int32Array => words.subarray(at, (at += length));
    this.grid = grid;
    this.sizes = new LockstepBarrier(take(LockstepBarrier.numWords(numRanks)), numRanks);
    this.passes = new LockstepBarrier(take(LockstepBarrier.numWords(numRanks)), numRanks);
    this.#rows = take(numRanks);
    this.#engineWords = take(EnginePasses.numWords(sizes.dataParallel));
    this.board = new ActivityBoard(take(ActivityBoard.numWords(numRanks + sizes.dataParallel)));
    this.shards = new ShardExchange(take(ShardExchange.numWords(numRanks, shardWords)), numRanks, shardWords);
  }

  static numWords({ numRanks, sizes }: RankGrid, shardWords = 0): number {
    const numActors = numRanks + sizes.dataParallel;
    const barriers = 2 * LockstepBarrier.numWords(numRanks);
    const others = EnginePasses.numWords(sizes.dataParallel) + ActivityBoard.numWords(numActors);
    return barriers + numRanks + others + ShardExchange.numWords(numRanks, shardWords);
  }

  /** The tensor-parallel ranks of an engine, in their order. */
  ranksOf(engine: number): readonly number[] {
    const { tensorParallel } = this.grid.sizes;
    return Array.from({ length: tensorParallel }, (_, tensorRank) =>
      this.grid.rankOf({ engine, stage: 0, tensorRank }),
    );
  }

  /** Where some ranks have come to and others have not, or will come to next. */
  get waitedAt(): LockstepBarrier {
    const { sizes, passes } = this;
    return this.grid.sizes.dataParallel > 1 && sizes.numReleased === passes.numReleased ? sizes : passes;
  }

  /** The place of an engine on the board, behind the ranks. */
  engineActor(engine: number): number {
    return this.grid.numRanks + engine;
  }

  enginePasses(engine: number): EnginePasses {
    return new EnginePasses(this.#engineWords, this.grid.sizes.dataParallel, engine);
  }

  /** Before the rank arrives at `sizes`. */
  postRows(rank: number, numRows: number): void {
    Atomics.store(this.#rows, rank, numRows);
  }

  /** Of each engine, behind `sizes`. Ranks of one engine run the same. */
  rowsOfEngines(): readonly number[] {
    const { dataParallel } = this.grid.sizes;
    return Array.from({ length: dataParallel }, (_, engine) =>
      Atomics.load(this.#rows, this.grid.rankOf({ engine, stage: 0, tensorRank: 0 })),
    );
  }
}
