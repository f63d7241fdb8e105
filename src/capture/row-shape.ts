/** The arithmetic of rows that worker halves, engine halves and consumers share. */

import type { ModelConfig, RowDtype } from '../contract/config.ts';

/** Rows one after the other: entry `(row · L + layer) · K + k`. */
export type RowArray = Uint8Array | Uint16Array | Int32Array;

/** How much a row is. */
export type RowShape = Readonly<{
  numLayers: number;
  topK: number;
  dtype: RowDtype;
  /** L·K. */
  entriesPerRow: number;
  bytesPerRow: number;
}>;

const bytesPerEntry = { uint8: 1, uint16: 2, int32: 4 } as const satisfies Record<RowDtype, number>;

/** The narrowest dtype that holds every expert id: ids of more than 256 experts wrap in `uint8`. */
export function narrowDtype(numExperts: number): 'uint8' | 'uint16' {
  return numExperts <= 256 ? 'uint8' : 'uint16';
}

/** The shape of a row of a model; `dtype` absent = the narrowest that holds its ids. */
export function rowShape(model: ModelConfig, dtype: RowDtype = narrowDtype(model.numExperts)): RowShape {
  const entriesPerRow = model.numLayers * model.topK;
  return {
    numLayers: model.numLayers,
    topK: model.topK,
    dtype,
    entriesPerRow,
    bytesPerRow: entriesPerRow * bytesPerEntry[dtype],
  };
}

/** A zeroed array of `numRows` rows. */
export function allocateRows(shape: RowShape, numRows: number): RowArray {
  const length = numRows * shape.entriesPerRow;
  switch (shape.dtype) {
    case 'uint8':
      return new Uint8Array(length);
    case 'uint16':
      return new Uint16Array(length);
    case 'int32':
      return new Int32Array(length);
    default:
      return shape.dtype satisfies never;
  }
}

/** The first `numRows` rows of `bytes`, seen as row entries. No copy. */
export function viewRows(shape: RowShape, bytes: Uint8Array, numRows: number): RowArray {
  const length = numRows * shape.entriesPerRow;
  switch (shape.dtype) {
    case 'uint8':
      return new Uint8Array(bytes.buffer, bytes.byteOffset, length);
    case 'uint16':
      return new Uint16Array(bytes.buffer, bytes.byteOffset, length);
    case 'int32':
      return new Int32Array(bytes.buffer, bytes.byteOffset, length);
    default:
      return shape.dtype satisfies never;
  }
}
