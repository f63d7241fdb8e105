/** Ranks whose passes end together: where they meet, and what each of them does. */

import { ActivityBoard } from './activity-board.ts';
import { LockstepBarrier } from './lockstep-barrier.ts';
import type { RankGrid } from './rank-grid.ts';

export class LockstepGroup {
  readonly grid: RankGrid;
  readonly barrier: LockstepBarrier;
  readonly board: ActivityBoard;
  /** The barrier's words are the first of them. */
  readonly words: Int32Array;

  /** `words`: `numWords` of them, zeros at first. */
  constructor(grid: RankGrid, words: Int32Array) {
    const barrierWords = LockstepBarrier.numWords(grid.numRanks);
    this.grid = grid;
    this.words = words;
    this.barrier = new LockstepBarrier(words.subarray(0, barrierWords), grid.numRanks);
    this.board = new ActivityBoard(words.subarray(barrierWords));
  }

  static numWords({ numRanks, sizes }: RankGrid): number {
    return LockstepBarrier.numWords(numRanks) + ActivityBoard.numWords(numRanks + sizes.dataParallel);
  }

  /** The place of an engine on the board, behind the ranks. */
  engineActor(engine: number): number {
    return this.grid.numRanks + engine;
  }
}
