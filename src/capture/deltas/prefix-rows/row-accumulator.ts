/** The rows of one request, gathered from the outputs of many steps and from the blocks that it hit. */

import type { PositionRange, RoutedRows } from '../../../contract/routed-rows.ts';
import { routedRows } from '../../routed-rows.ts';
import type { RowArray, RowShape } from '../../row-shape.ts';
import { allocateRows } from '../../row-shape.ts';
import type { RowRun } from './row-run.ts';
import { TableRows } from './table-rows.ts';

type ChunkList = Pick<RoutedRows, 'chunks' | 'missing'>;

/** Rows `[from, to)` of one block, which lie in `run`. */
type Piece = Readonly<{ run: RowRun; from: number; to: number }>;

/** The rows of one block that are there: in order, none twice. */
type HeldRows = readonly Piece[];

const NO_ROWS: HeldRows = [];

/**
 *     position     0 ……… 15 │ 16 ……… 31 │ 32 ………
 *     table        [ block 0 ] [ block 1 ]               rows of the blocks that the request holds, or held last
 *     earlier      [ block 0 ] [ block 1 ] [ block 2 ]   rows of the block tables before its preemptions
 *
 * A preempted request computes, or hits, its positions again. The new rows of a block take the place of the earlier
 * ones once there are as many. Until then the earlier rows count, so that an abort meanwhile loses none. Where loaded
 * KV ends inside a block, the block may have only the rows behind it, and its recomputation only those before: then the
 * rows of both count.
 */
export class RowAccumulator {
  readonly #shape: RowShape;
  readonly #blockSize: number;
  readonly #promptStart: number;
  #table: TableRows;
  #isOpen = true;
  /** Tables before it for which steps in flight may compute rows, oldest first. */
  readonly #tablesBefore: TableRows[] = [];
  #earlier: HeldRows[] = [];

  constructor(shape: RowShape, blockSize: number, promptStart: number) {
    this.#shape = shape;
    this.#blockSize = blockSize;
    this.#promptStart = promptStart;
    this.#table = new TableRows(shape, blockSize, promptStart);
  }

  /**
   * The block table of a request that holds blocks and knows `numTokens` tokens. Begins a new one after `closeTable`.
   */
  table(numTokens: number): TableRows {
    if (this.#isOpen) return this.#table;
    // Outputs that count were waited for: what has not come to the old table by now was thrown away.
    const end = numTokens - 1;
    const numBlocks = Math.ceil(Math.max(0, end) / this.#blockSize);
    this.#earlier = Array.from({ length: numBlocks }, (_, i) => this.#block(i, end, Infinity));
    this.#tablesBefore.push(this.#table);
    this.#table = new TableRows(this.#shape, this.#blockSize, this.#promptStart);
    this.#isOpen = true;
    return this.#table;
  }

  /** The table for which the step computes rows. Steps come in their order: tables before it are let go. */
  tableOf(stepId: number): TableRows {
    const before = this.#tablesBefore;
    if (before.length === 0) return this.#table;
    if (stepId >= this.#table.firstStepId) {
      before.length = 0;
      return this.#table;
    }
    before.splice(
      0,
      before.findLastIndex(({ firstStepId }) => firstStepId <= stepId),
    );
    return before[0]!;
  }

  /** The request loses its blocks. */
  closeTable(): void {
    if (this.#table.firstStepId < Infinity) this.#isOpen = false;
    else this.#forgetTable();
  }

  /**
   * The rows `[start, end)`, without a copy, in constant time. The list of chunks is put together when it is first
   * read: that is the caller's time and not the scheduler's (L6). It is the list of this moment: what arrives later is
   * not in it. The memory is shared.
   */
  take(start: number, end: number): RoutedRows {
    if (this.#table.firstStepId === Infinity) this.#forgetTable();
    const { arrivedEnd, hasOutput } = this.#table;
    // Before the table's first output even hit blocks may be waiting for rows: the list is put together at once.
    let list: ChunkList | null = hasOutput ? null : this.#chunkList(start, end, Infinity);
    const chunkList = (): ChunkList => (list ??= this.#chunkList(start, end, arrivedEnd));
    return {
      ...routedRows(this.#shape, start, end, { rowsPerChunk: this.#blockSize, chunks: [] }),
      get chunks() {
        return chunkList().chunks;
      },
      get missing() {
        return chunkList().missing;
      },
    };
  }

  /** Bytes of the runs that the request holds and that the count `count` has not met. */
  bytesOnce(count: number): number {
    let bytes = this.#table.bytesOnce(count);
    for (const table of this.#tablesBefore) bytes += table.bytesOnce(count);
    for (const held of this.#earlier) for (const { run } of held) bytes += run.bytesOnce(count);
    return bytes;
  }

  /** The rows of KV that no pass of the request was to read are not its own (L9). */
  #forgetTable(): void {
    this.#table = new TableRows(this.#shape, this.#blockSize, this.#promptStart);
  }

  #chunkList(start: number, end: number, arrivedEnd: number): ChunkList {
    const chunks: (RowArray | null)[] = [];
    const missing: PositionRange[] = [];
    let known = start;
    for (let i = 0, from = 0; from < end; i++, from += this.#blockSize) {
      const to = from + this.#blockSize;
      const held = to > start ? this.#block(i, end, arrivedEnd) : NO_ROWS;
      chunks.push(this.#chunk(held, from, to));
      for (const piece of held) {
        if (piece.from > known) missing.push([known, piece.from]);
        known = Math.max(known, piece.to);
      }
    }
    if (known < end) missing.push([known, end]);
    return { chunks, missing };
  }

  /** The rows of the block `[from, to)`: a view where one run has them all, else a copy. */
  #chunk(held: HeldRows, from: number, to: number): RowArray | null {
    if (held.length < 2) return held[0]?.run.rows(from, to) ?? null;
    const chunk = allocateRows(this.#shape, to - from);
    const width = this.#shape.entriesPerRow;
    for (const piece of held) chunk.set(piece.run.rows(piece.from, piece.to)!, (piece.from - from) * width);
    return chunk;
  }

  /** The rows of block `i` before position `end`, of the newer table and of earlier ones. */
  #block(i: number, end: number, arrivedEnd: number): HeldRows {
    const older = this.#earlier[i] ?? NO_ROWS;
    const run = this.#table.runs[i];
    if (!run) return older;
    const from = Math.max(i * this.#blockSize, this.#promptStart, run.first);
    const to = Math.min(this.#table.ownRowsEnd(i, arrivedEnd), end);
    return from < to ? joined({ run, from, to }, older) : older;
  }
}

/** All rows of both: of the newer alone, or of the older alone, where that has them all. */
function joined(newer: Piece, older: HeldRows): HeldRows {
  const { from, to } = newer;
  if (older.every((piece) => from <= piece.from && piece.to <= to)) return [newer];
  if (older.some((piece) => piece.from <= from && to <= piece.to)) return older;
  const before = older.map((piece) => ({ ...piece, to: Math.min(piece.to, from) }));
  const behind = older.map((piece) => ({ ...piece, from: Math.max(piece.from, to) }));
  return [...before, newer, ...behind].filter((piece) => piece.from < piece.to);
}
