/** Ranks whose passes end together: where they meet, and what each of them does. */

import { ActivityBoard } from './activity-board.ts';
import { EnginePasses } from './engine-passes.ts';
import { LockstepBarrier } from './lockstep-barrier.ts';
import type { RankGrid } from './rank-grid.ts';

/**
 *     before a pass   `sizes`: each rank says how many rows it runs, and hears it of the others (data parallel only)
 *     after it        `passes`
 *
 * Memory: both barriers, the rows of each rank, the passes that engines owe, the board.
 */
export class LockstepGroup {
  readonly grid: RankGrid;
  readonly sizes: LockstepBarrier;
  readonly passes: LockstepBarrier;
  readonly board: ActivityBoard;
  readonly #rows: Int32Array;
  readonly #engineWords: Int32Array;

  /** `words`: `numWords` of them, zeros at first. */
  constructor(grid: RankGrid, words: Int32Array) {
    const { numRanks, sizes } = grid;
    let at = 0;
    const take = (length: number): Int32Array => words.subarray(at, (at += length));
    this.grid = grid;
    this.sizes = new LockstepBarrier(take(LockstepBarrier.numWords(numRanks)), numRanks);
    this.passes = new LockstepBarrier(take(LockstepBarrier.numWords(numRanks)), numRanks);
    this.#rows = take(numRanks);
    this.#engineWords = take(EnginePasses.numWords(sizes.dataParallel));
    this.board = new ActivityBoard(take(ActivityBoard.numWords(numRanks + sizes.dataParallel)));
  }

  static numWords({ numRanks, sizes }: RankGrid): number {
    const numActors = numRanks + sizes.dataParallel;
    const barriers = 2 * LockstepBarrier.numWords(numRanks);
    return barriers + numRanks + EnginePasses.numWords(sizes.dataParallel) + ActivityBoard.numWords(numActors);
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
