/** The rows of neighbouring KV blocks of one block table, in one piece of memory. */

import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { RowArray, RowShape } from '../../row-shape.ts';
import { allocateRows } from '../../row-shape.ts';

/** The positions that a run covers: whole blocks, of which the rows before `first` will never come. */
export type RunPositions = Readonly<{ from: number; to: number; first: number }>;

/**
 *     position   from ──── first ──────── end ──────── to
 *     block       ⋮   │ never  ⋮  stand      ⋮  to come  ⋮
 *
 * Rows come in order and each of them once: a block is computed from front to back, and a request that computes it anew
 * does so in another run. A block is hit at the position at which it was computed, so positions mean the same to every
 * holder of the run.
 *
 * Invariant: the rows `[first, end)` never change again. So any number of requests, blocks and callers can hold a run
 * without a copy.
 */
export class RowRun {
  readonly from: number;
  readonly to: number;
  readonly first: number;
  readonly #shape: RowShape;
  #end: number;
  /** `[to − from, L, K]`, from the first row on. */
  #rows: RowArray | null = null;
  #lastCount = 0;

  constructor(shape: RowShape, { from, to, first }: RunPositions) {
    this.#shape = shape;
    this.from = from;
    this.to = to;
    this.first = first;
    this.#end = first;
  }

  get end(): number {
    return this.#end;
  }

  get byteLength(): number {
    return this.#rows === null ? 0 : (this.to - this.from) * this.#shape.bytesPerRow;
  }

  /** Its bytes when the count `count` meets it first, 0 after that: a run has many holders. Counts begin at 1. */
  bytesOnce(count: number): number {
    if (this.#lastCount === count) return 0;
    this.#lastCount = count;
    return this.byteLength;
  }

  /** The rows `[from, to)`, a view; `null` before the first row. Those outside `[first, end)` are undefined. */
  rows(from: number, to: number): RowArray | null {
    if (this.#rows === null) return null;
    const width = this.#shape.entriesPerRow;
    return this.#rows.subarray((from - this.from) * width, (to - this.from) * width);
  }

  /** The next `count` rows, which are copied. Throws INVARIANT unless `position` is the next one. */
  write(position: number, count: number, rows: RowArray): void {
    if (position !== this.#end || position + count > this.to) {
      throw RoutedExpertsError.of(
        'INVARIANT',
        `rows [${position}, ${position + count}) arrived where [${this.#end}, ${this.to}) were due`,
      );
    }
    this.#rows ??= allocateRows(this.#shape, this.to - this.from);
    this.#rows.set(rows, (position - this.from) * this.#shape.entriesPerRow);
    this.#end = position + count;
  }

  /** A run of its own for the rows `[from, to)`, all of which stand: O(to − from). */
  copy(from: number, to: number): RowRun {
    const first = Math.max(from, this.first);
    const copy = new RowRun(this.#shape, { from, to, first });
    if (first < to) copy.write(first, to - first, this.rows(first, to)!);
    return copy;
  }
}
