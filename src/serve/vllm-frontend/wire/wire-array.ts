/**
 * Arrays in vLLM's messages: `[dtype, shape, data]`, where data is the bytes themselves, or the number of the frame
 * that has them:
 *
 *     frames   [ message: … ["|u1", [1, 36, 4], ext 3] … ["|u1", [400, 36, 4], 1] … ][ bytes of the second ][ …
 *                              below 256 bytes              from 256 bytes on           frame 1
 */

import { presentPieces } from '../../../capture/routed-rows.ts';
import type { RowArray } from '../../../capture/row-shape.ts';
import type { RoutedRows } from '../../../contract/routed-rows.ts';
import { unsignedDtype } from '../../../rows/forms/unsigned-dtype.ts';
import { rawBytes } from './msgpack.ts';

/** Arrays of so many bytes have a frame of their own. */
const FRAME_BYTES = 256;

/** `dtype`: NumPy's name, or PyTorch's for a tensor. Items in C order, little-endian. */
export type WireArray = Readonly<{ dtype: string; shape: readonly number[]; items: ArrayBufferView }>;

/** The frames behind a message, numbered from 1 in the order in which its arrays are placed. */
export class MessageFrames {
  readonly frames: Uint8Array[] = [];

  /** Returns what stands for the array in the message. Its bytes are not copied. */
  place({ dtype, shape, items }: WireArray): readonly unknown[] {
    const bytes = new Uint8Array(items.buffer, items.byteOffset, items.byteLength);
    if (bytes.length < FRAME_BYTES) return [dtype, shape, rawBytes(bytes)];
    this.frames.push(bytes);
    return [dtype, shape, this.frames.length];
  }
}

/**
 * Rows as vLLM's array `[rows, layers, topK]`: a view where they lie in one piece, else a copy. vLLM cannot say that a
 * row is missing: its place holds 255 or 65535, which no expert has (L4).
 */
export function rowsArray(rows: RoutedRows, numExperts: number): WireArray {
  const { start, count, numLayers, topK } = rows;
  const { dtype, fill } = unsignedDtype(rows, numExperts);
  const width = numLayers * topK;
  const shape = [count, numLayers, topK];
  const name = dtype === 'uint8' ? '|u1' : '<u2';
  let items: RowArray | null = null;
  for (const piece of presentPieces(rows)) {
    if (piece.count === count && rows.dtype === dtype) return { dtype: name, shape, items: piece.rows };
    items ??= emptyItems(dtype, count * width, rows.missing.length > 0 ? fill : 0);
    items.set(piece.rows, (piece.position - start) * width);
  }
  return { dtype: name, shape, items: items ?? emptyItems(dtype, count * width, fill) };
}

function emptyItems(dtype: 'uint8' | 'uint16', length: number, fill: number): RowArray {
  const items = dtype === 'uint8' ? new Uint8Array(length) : new Uint16Array(length);
  return fill === 0 ? items : items.fill(fill);
}
