/** The rows of one request, gathered from the outputs of many steps and from the blocks that it hit. */

import type { PositionRange, RoutedRows } from '../../contract/routed-rows.ts';
import type { RowArray, RowShape } from '../row-shape.ts';
import type { RowRun } from './row-run.ts';
import { TableRows } from './table-rows.ts';

type ChunkList = Pick<RoutedRows, 'chunks' | 'missing'>;

/** Of a block's rows in `run`, those before `end` are the request's. */
type HeldRows = Readonly<{ run: RowRun; end: number }>;

/**
 *     position     0 ……… 15 │ 16 ……… 31 │ 32 ………
 *     table        [ block 0 ] [ block 1 ]               rows of the blocks that the request holds, or held last
 *     earlier      [ block 0 ] [ block 1 ] [ block 2 ]   rows of the block tables before its preemptions
 *
 * A preempted request computes, or hits, its positions again: their rows take the place of the earlier ones block by block, once there are
 * as many of what can be asked for. Until then the earlier rows count, so that an abort meanwhile loses none.
 */
export class RowAccumulator {
  readonly #shape: RowShape;
  readonly #blockSize: number;
  readonly #promptStart: number;
  #table: TableRows;
  #isOpen = true;
  #earlier: (HeldRows | null)[] = [];

  constructor(shape: RowShape, blockSize: number, promptStart: number) {
    this.#shape = shape;
    this.#blockSize = blockSize;
    this.#promptStart = promptStart;
    this.#table = new TableRows(shape, blockSize, promptStart);
  }

  /** The block table of a request that holds blocks and knows `numTokens` tokens. Begins a new one after `closeTable`. */
  table(numTokens: number): TableRows {
    if (this.#isOpen) return this.#table;
    // What has not come to the old table by now is of outputs that were thrown away: those that count are waited for.
    const end = numTokens - 1;
    const numBlocks = Math.ceil(Math.max(0, end) / this.#blockSize);
    this.#earlier = Array.from({ length: numBlocks }, (_, i) => this.#block(i, end, Infinity));
    this.#table = new TableRows(this.#shape, this.#blockSize, this.#promptStart);
    this.#isOpen = true;
    return this.#table;
  }

  /** The request loses its blocks. */
  closeTable(): void {
    this.#isOpen = false;
  }

  /**
   * Hands out the rows `[start, end)` without copying one, in constant time: the list of chunks is put together when it is first read, which is
   * the caller's time and not the scheduler's (L6). It is the list of this moment: what arrives later is not in it. The memory is shared.
   */
  take(start: number, end: number): RoutedRows {
    const { arrivedEnd, hasOutput } = this.#table;
    // Before the table's first output even hit blocks may be waiting for rows: the list is put together at once.
    let list: ChunkList | null = hasOutput ? null : this.#chunkList(start, end, Infinity);
    const chunkList = (): ChunkList => (list ??= this.#chunkList(start, end, arrivedEnd));
    return {
      start,
      count: Math.max(0, end - start),
      numLayers: this.#shape.numLayers,
      topK: this.#shape.topK,
      dtype: this.#shape.dtype,
      rowsPerChunk: this.#blockSize,
      get chunks() {
        return chunkList().chunks;
      },
      get missing() {
        return chunkList().missing;
      },
    };
  }

  /** Adds every run that the request holds to `runs`. */
  collectRuns(runs: Set<RowRun>): void {
    for (const run of this.#table.runs) if (run) runs.add(run);
    for (const held of this.#earlier) if (held) runs.add(held.run);
  }

  #chunkList(start: number, end: number, arrivedEnd: number): ChunkList {
    const chunks: (RowArray | null)[] = [];
    const missing: PositionRange[] = [];
    let known = start;
    for (let i = 0, from = 0; from < end; i++, from += this.#blockSize) {
      const to = from + this.#blockSize;
      const held = to > start ? this.#block(i, end, arrivedEnd) : null;
      chunks.push(held === null ? null : held.run.rows(from, to));
      if (held === null) continue;
      const first = Math.min(end, Math.max(from, held.run.first));
      if (first > known) missing.push([known, first]);
      known = Math.max(known, held.end);
    }
    if (known < end) missing.push([known, end]);
    return { chunks, missing };
  }

  /** The rows of block `i` with more of those before position `end`; of equals the newer. */
  #block(i: number, end: number, arrivedEnd: number): HeldRows | null {
    const run = this.#table.runs[i] ?? null;
    const from = Math.max(i * this.#blockSize, this.#promptStart);
    const ownEnd = run === null ? 0 : this.#table.ownRowsEnd(i, arrivedEnd);
    const newer = run === null || ownEnd <= Math.max(from, run.first) ? null : { run, end: ownEnd };
    const older = this.#earlier[i] ?? null;
    if (newer === null || older === null) return newer ?? older;
    const to = Math.min((i + 1) * this.#blockSize, end);
    return countRows(newer, from, to) >= countRows(older, from, to) ? newer : older;
  }
}

/** How many of the rows `[from, to)` are there. */
function countRows({ run, end }: HeldRows, from: number, to: number): number {
  return Math.max(0, Math.min(to, end) - Math.max(from, run.first));
}
