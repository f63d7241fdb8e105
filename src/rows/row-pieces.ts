/** Rows as bytes, a piece at a time, so that a writer can give the event loop its turn in between (L6). */

import { presentPieces } from '../capture/routed-rows.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';

/** Element types of the wire, all little-endian. Signed ones hold −1 for a row that is missing. */
export type WireDtype = 'uint8' | 'uint16' | 'int8' | 'int16' | 'int32';

type WireArray = Uint8Array | Uint16Array | Int8Array | Int16Array | Int32Array;

const wireArrays: Readonly<Record<WireDtype, (buffer: ArrayBuffer) => WireArray>> = {
  uint8: (buffer) => new Uint8Array(buffer),
  uint16: (buffer) => new Uint16Array(buffer),
  int8: (buffer) => new Int8Array(buffer),
  int16: (buffer) => new Int16Array(buffer),
  int32: (buffer) => new Int32Array(buffer),
};

/** A multiple of 3 (base64 without padding inside), and of 4 (whole elements). About 0.1 ms to fill and encode. */
export const PIECE_BYTES: number = 192 * 1024;

/** What stands around the rows: bytes, a multiple of 4, and ids. */
export type Around = Readonly<{ header?: Uint8Array; tail?: Uint16Array }>;

/**
 * `header`, `[count, L, K]` elements of `dtype` in C order, `tail`; missing rows hold `fill`. Each piece but the last
 * has `PIECE_BYTES`; it is valid until the next is asked for.
 */
export function* rowPieces(
  rows: RoutedRows,
  dtype: WireDtype,
  fill: number,
  { header = new Uint8Array(0), tail = new Uint16Array(0) }: Around = {},
): Generator<Uint8Array> {
  const writer = new PieceWriter(dtype, header);
  const width = rows.numLayers * rows.topK;
  let end = rows.start;
  for (const piece of presentPieces(rows)) {
    yield* writer.fill(fill, (piece.position - end) * width);
    yield* writer.copy(piece.rows);
    end = piece.position + piece.count;
  }
  yield* writer.fill(fill, (rows.start + rows.count - end) * width);
  yield* writer.copy(tail);
  yield writer.rest();
}

class PieceWriter {
  readonly #bytes: Uint8Array;
  readonly #elements: WireArray;
  /** Elements of the current piece, those of the header included. */
  #length: number;

  constructor(dtype: WireDtype, header: Uint8Array) {
    const buffer = new ArrayBuffer(PIECE_BYTES);
    this.#bytes = new Uint8Array(buffer);
    this.#elements = wireArrays[dtype](buffer);
    this.#bytes.set(header);
    this.#length = header.length / this.#elements.BYTES_PER_ELEMENT;
  }

  *copy(source: ArrayLike<number> & { subarray(from: number, to: number): ArrayLike<number> }): Generator<Uint8Array> {
    for (let done = 0; done < source.length;) {
      const count = Math.min(source.length - done, this.#elements.length - this.#length);
      this.#elements.set(source.subarray(done, done + count), this.#length);
      done += count;
      yield* this.#advance(count);
    }
  }

  *fill(value: number, length: number): Generator<Uint8Array> {
    for (let left = length; left > 0;) {
      const count = Math.min(left, this.#elements.length - this.#length);
      this.#elements.fill(value, this.#length, this.#length + count);
      left -= count;
      yield* this.#advance(count);
    }
  }

  rest(): Uint8Array {
    return this.#bytes.subarray(0, this.#length * this.#elements.BYTES_PER_ELEMENT);
  }

  *#advance(count: number): Generator<Uint8Array> {
    this.#length += count;
    if (this.#length < this.#elements.length) return;
    this.#length = 0;
    yield this.#bytes;
  }
}
