/** What the readers of wire forms share: the elements that a form holds, before anything is made of them. */

import type { PositionRange } from '../../contract/routed-rows.ts';
import { decodeBase64 } from '../base64.ts';
import type { WireDtype } from '../row-pieces.ts';

/** Rows, layers and experts of a row. */
export type WireShape = readonly [numRows: number, numLayers: number, topK: number];

export type WireElements = Readonly<{
  dtype: WireDtype;
  /** Aligned for every dtype. */
  bytes: Uint8Array;
  /** `null` of a form that does not say it. */
  shape: WireShape | null;
  /** Position of the first row; `null` of a form that does not say it. */
  start: number | null;
  /** Of a form that says itself which rows are missing. */
  missing?: readonly PositionRange[];
  /** Of a form that says how wide its ids are: the most experts that there can be. */
  numExperts?: number;
}>;

/** Throws an Error for a value that is no base64. */
export function wireBytes(value: unknown): Uint8Array {
  if (typeof value !== 'string') throw new Error('it has no rows');
  const bytes = decodeBase64(value);
  if (bytes === null) throw new Error('its rows are not whole base64');
  return bytes;
}

/** Throws an Error for a value that is not three sizes. */
export function wireShape(value: unknown): WireShape {
  if (Array.isArray(value) && value.length === 3) {
    const [numRows, numLayers, topK] = value as readonly unknown[];
    if (isSize(numRows) && isSize(numLayers) && isSize(topK)) return [numRows, numLayers, topK];
  }
  throw new Error('its rows have no shape [S, L, K]');
}

export function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
