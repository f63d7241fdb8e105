/** The scheduler's table of rows: one row for each physical KV slot. */

import type { EngineConfig } from '../../contract/config.ts';
import type { RowArray, RowShape } from '../row-shape.ts';
import { allocateRows } from '../row-shape.ts';

/**
 *     slot     0 ………… 15 │ 16 ………… 31 │ …     block b owns the slots [b · blockSize, (b + 1) · blockSize)
 *     table    [ L·K ids ] × numBlocks · blockSize
 *
 * Invariant: after the output of step n was stored, slot s holds the row that the last of the steps 0 … n to write s
 * computed. Outputs arrive in order. So a block table as it was when step n was *scheduled* reads the right rows even
 * if its blocks were given to other requests since: the rows of those come with later outputs.
 */
export class SlotTable {
  readonly #shape: RowShape;
  readonly #blockSize: number;
  readonly #rows: RowArray;

  constructor(shape: RowShape, engine: Pick<EngineConfig, 'numBlocks' | 'blockSize'>) {
    this.#shape = shape;
    this.#blockSize = engine.blockSize;
    this.#rows = allocateRows(shape, engine.numBlocks * engine.blockSize);
  }

  /** Copies row i of `rows` to slot `slots[i]`, neighbouring slots in one go. */
  storeBatch(rows: RowArray, slots: Uint32Array): void {
    const width = this.#shape.entriesPerRow;
    for (let row = 0; row < slots.length;) {
      const slot = slots[row]!;
      let end = row + 1;
      while (end < slots.length && slots[end] === slot + end - row) end++;
      this.#rows.set(rows.subarray(row * width, end * width), slot * width);
      row = end;
    }
  }

  /** Rows of the positions `[start, end)` through a block table, one page a block; pages before `start` are `null`. */
  pages(blockIds: ArrayLike<number>, start: number, end: number): (RowArray | null)[] {
    const pageLength = this.#blockSize * this.#shape.entriesPerRow;
    const pages: (RowArray | null)[] = [];
    const firstPage = Math.floor(start / this.#blockSize);
    for (let page = 0; page * this.#blockSize < end; page++) {
      const from = blockIds[page]! * pageLength;
      pages.push(page < firstPage ? null : this.#rows.slice(from, from + pageLength));
    }
    return pages;
  }
}
