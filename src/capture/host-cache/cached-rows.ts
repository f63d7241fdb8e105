/** One request's rows on the worker's host, by absolute position. */

import type { BytePool } from '../byte-pool.ts';
import { PositionRanges, rangesBetween } from '../position-ranges.ts';
import type { PositionRange } from '../../contract/routed-rows.ts';
import type { RowShape } from '../row-shape.ts';

/** Rows of the smallest cache: grown by doubling, so that a row is moved less than once on average. */
const FEWEST_ROWS = 64;

/**
 *     position   0 1 2 3 …                       capacity
 *     bytes      [ row ][ row ][ ··· ][ row ] …  buffers come from a pool and go back to it, full of old rows
 *
 * Invariant: only positions in `#present` are ever read; the others may hold rows of another request.
 */
export class CachedRows {
  readonly #shape: RowShape;
  readonly #buffers: BytePool;
  readonly #present: PositionRanges = new PositionRanges();
  #bytes: Uint8Array<ArrayBuffer>;

  constructor(shape: RowShape, buffers: BytePool) {
    this.#shape = shape;
    this.#buffers = buffers;
    this.#bytes = new Uint8Array(buffers.take(FEWEST_ROWS * shape.bytesPerRow));
  }

  get byteLength(): number {
    return this.#bytes.byteLength;
  }

  /** Copies the rows in `bytes` to the positions from `position` on. */
  write(position: number, bytes: Uint8Array): void {
    const { bytesPerRow } = this.#shape;
    const end = position * bytesPerRow + bytes.byteLength;
    if (end > this.#bytes.byteLength) this.#grow(end);
    this.#bytes.set(bytes, position * bytesPerRow);
    this.#present.add(position, end / bytesPerRow);
  }

  /** Ranges of `[start, end)` of which there are rows. */
  present(start: number, end: number): PositionRange[] {
    return rangesBetween(this.#present.gaps(start, end), start, end);
  }

  /** Rows of `[from, to)`, all of them present. A view. */
  read(from: number, to: number): Uint8Array {
    return this.#bytes.subarray(from * this.#shape.bytesPerRow, to * this.#shape.bytesPerRow);
  }

  /** Gives the memory back. The object is of no use afterwards. */
  free(): void {
    this.#buffers.give(this.#bytes.buffer);
    this.#bytes = new Uint8Array(0);
  }

  #grow(minBytes: number): void {
    const grown = new Uint8Array(this.#buffers.take(Math.max(minBytes, this.#bytes.byteLength * 2)));
    grown.set(this.#bytes);
    this.#buffers.give(this.#bytes.buffer);
    this.#bytes = grown;
  }
}
