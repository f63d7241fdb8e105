/** The arithmetic of rows that worker halves, engine halves and readers share. */

import type { ModelConfig, RowDtype } from '../contract/config.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import { rowDtype } from '../kernels/model/kernel-shape.ts';
import { routerLayers } from '../kernels/model/model-layers.ts';

/** Rows one after the other: entry `(row · L + layer) · K + k`. */
export type RowArray = Uint8Array | Uint16Array | Int32Array;

/** What a row consists of: `L × K` ids. */
export type RowForm = Pick<RoutedRows, 'numLayers' | 'layers' | 'topK' | 'dtype'>;

/** The form of a row, and how much it is. */
export type RowShape = RowForm &
  Readonly<{
    /** L·K. */
    entriesPerRow: number;
    bytesPerRow: number;
  }>;

type RowArrayConstructor = {
  readonly BYTES_PER_ELEMENT: number;
  new (length: number): RowArray;
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): RowArray;
};

const rowArrays: Readonly<Record<RowDtype, RowArrayConstructor>> = {
  uint8: Uint8Array,
  uint16: Uint16Array,
  int32: Int32Array,
};

/** Rows in the dtype that the pack kernel writes, unless a design has its own. */
export function rowShape(model: ModelConfig, dtype: RowDtype = rowDtype(model.numExperts)): RowShape {
  const { numLayers, topK } = model;
  const entriesPerRow = numLayers * topK;
  const bytesPerRow = entriesPerRow * rowArrays[dtype].BYTES_PER_ELEMENT;
  return { numLayers, layers: routerLayers(model), topK, dtype, entriesPerRow, bytesPerRow };
}

/** A zeroed array of `numRows` rows. */
export function allocateRows({ numLayers, topK, dtype }: RowForm, numRows: number): RowArray {
  return new rowArrays[dtype](numRows * numLayers * topK);
}

/** The first `numRows` rows of `bytes`, seen as row entries. No copy. */
export function viewRows({ numLayers, topK, dtype }: RowForm, bytes: Uint8Array, numRows: number): RowArray {
  return new rowArrays[dtype](bytes.buffer, bytes.byteOffset, numRows * numLayers * topK);
}
