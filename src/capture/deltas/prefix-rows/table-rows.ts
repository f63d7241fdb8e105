/** The rows of one block table: what a request computes and hits between an admission and the loss of its blocks. */

import type { RowArray, RowShape } from '../../row-shape.ts';
import { RowRun } from './row-run.ts';

/**
 * Blocks that are filled together share a run of this size at most. A prefill step fills hundreds of blocks: with
 * memory for each alone, the garbage collector would visit thousands of objects a second. A request that hits one block
 * holds a whole run, and no more.
 */
const RUN_BYTES = 64 * 1024;

/**
 * A decode fills a block in many steps, and to get memory for one block takes as long as to copy its rows: a run has
 * room for so many blocks, and for no more than lie before it.
 */
const BLOCKS_AHEAD = 4;

/**
 *     block table    [ 5 ][ 9 ][ 2 ][ 7 ]
 *     runs           [ p ][ p ][ q ][ q ]      p: of hit blocks, shared, or `null` if the block has no rows
 *                                              q: computed here
 *
 * A step in flight keeps the table for which it was scheduled: its rows belong to those blocks, even if the request has
 * another table by then, or is over.
 */
export class TableRows {
  /** The run of each block. */
  readonly runs: (RowRun | null)[] = [];
  readonly #shape: RowShape;
  readonly #blockSize: number;
  readonly #blocksPerRun: number;
  readonly #promptStart: number;
  /** The first step that was scheduled to read what the table's blocks hold. */
  firstStepId: number = Infinity;
  /** An output of the table has reached its owner. */
  hasOutput = false;
  /** Rows computed for the table have arrived up to here. */
  arrivedEnd = 0;
  #ownEnd = Infinity;

  constructor(shape: RowShape, blockSize: number, promptStart: number) {
    this.#shape = shape;
    this.#blockSize = blockSize;
    this.#blocksPerRun = Math.max(1, Math.floor(RUN_BYTES / (blockSize * shape.bytesPerRow)));
    this.#promptStart = promptStart;
  }

  /** The first position of block `i` whose row its owner wants; the end of the block if there is none. */
  firstWanted(i: number): number {
    return Math.min((i + 1) * this.#blockSize, Math.max(i * this.#blockSize, this.#promptStart));
  }

  /** Bytes of the runs that the count `count` has not met. */
  bytesOnce(count: number): number {
    let bytes = 0;
    for (const run of this.runs) if (run !== null) bytes += run.bytesOnce(count);
    return bytes;
  }

  /** The blocks `[first, end)` are computed here: those that have no run get one. */
  reserve(first: number, end: number): void {
    const { runs } = this;
    while (runs.length < first) runs.push(null);
    for (let i = first; i < end;) {
      if (runs[i]) {
        i++;
        continue;
      }
      const start = i;
      const ahead = start + Math.min(start, BLOCKS_AHEAD);
      const most = Math.min(Math.max(end, ahead), start + this.#blocksPerRun);
      while (i < most && !runs[i]) i++;
      const from = start * this.#blockSize;
      const to = i * this.#blockSize;
      const run = new RowRun(this.#shape, { from, to, first: Math.min(to, Math.max(from, this.#promptStart)) });
      for (let j = start; j < i; j++) runs[j] = run;
    }
  }

  /** Block `i` was found in the prefix cache, with these rows. */
  hit(i: number, run: RowRun | null): void {
    while (this.runs.length < i) this.runs.push(null);
    this.runs[i] = run;
  }

  /**
   * The KV of `[from, to)` came without rows. The block of `to` may be computed on from there; what it had before is
   * given up.
   */
  leaveOut(from: number, to: number): void {
    const size = this.#blockSize;
    const first = Math.floor(from / size);
    // Behind it there is at most room in the run of a block before.
    if (this.runs.length > first) this.runs.length = first;
    for (let i = first; i * size < to; i++) {
      const positions = { from: i * size, to: (i + 1) * size, first: Math.max(this.firstWanted(i), to) };
      this.hit(i, positions.first < positions.to ? new RowRun(this.#shape, positions) : null);
    }
  }

  /**
   * The output that computed `position` was thrown away. From there on the rows are not the owner's, and none is if it
   * was the table's first output. Other requests may have hit the blocks and still have the rows.
   */
  disown(position: number): void {
    this.#ownEnd = Math.min(this.#ownEnd, this.hasOutput ? position : 0);
  }

  /** Where the rows of block `i` end that stand, are the owner's, and are those of positions before `end`. */
  ownRowsEnd(i: number, end: number): number {
    return Math.min(this.runs[i]?.end ?? 0, (i + 1) * this.#blockSize, this.#ownEnd, end);
  }

  /** Copies `count` rows to the positions from `position` on: O(count). */
  write(position: number, count: number, rows: RowArray): void {
    const end = position + count;
    this.arrivedEnd = end;
    const first = Math.floor(position / this.#blockSize);
    const firstRun = this.runs[first];
    if (firstRun && end <= firstRun.to) {
      firstRun.write(position, count, rows);
      return;
    }
    this.reserve(first, Math.ceil(end / this.#blockSize));
    for (let at = position; at < end;) {
      const run = this.runs[Math.floor(at / this.#blockSize)]!;
      const to = Math.min(end, run.to);
      const width = this.#shape.entriesPerRow;
      const ofRun = to - at === count ? rows : rows.subarray((at - position) * width, (to - position) * width);
      run.write(at, to - at, ofRun);
      at = to;
    }
  }
}
