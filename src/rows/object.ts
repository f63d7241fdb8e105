/**
 * The form of prime-rl, verifiers and SkyRL: `{"data": base64, "shape": [S, L, K], "start": n, "dtype": "uint8" |
 * "uint16"}`.
 */

import type { RoutedRows } from '../contract/routed-rows.ts';
import type { JsonObject } from './json-object.ts';
import { isObject } from './json-object.ts';
import type { JsonParts } from './json-parts.ts';
import { base64String, objectWith } from './json-parts.ts';
import { rowPieces } from './row-pieces.ts';
import { unsignedDtype } from './unsigned-dtype.ts';
import type { WireElements } from './wire-elements.ts';
import { isSize, wireBytes, wireShape } from './wire-elements.ts';

/** One member, `routed_experts`. */
export function* objectMembers(rows: RoutedRows, numExperts: number): Generator<readonly [string, JsonParts]> {
  const { dtype, fill } = unsignedDtype(rows, numExperts);
  const shape = [rows.count, rows.numLayers, rows.topK];
  const data = base64String(rowPieces(rows, dtype, fill));
  yield ['routed_experts', objectWith({ shape, start: rows.start, dtype }, [['data', data]])];
}

/** Throws an Error for what is not of this form. `start` may be absent. */
export function readObject({ routed_experts: value }: JsonObject): WireElements {
  if (!isObject(value)) throw new Error('its rows are no object');
  const { dtype, shape, data, start = null } = value;
  if (dtype !== 'uint8' && dtype !== 'uint16') throw new Error(`its rows are of dtype ${String(dtype)}`);
  if (start !== null && !isSize(start)) throw new Error('its rows start at no position');
  return { dtype, bytes: wireBytes(data), shape: wireShape(shape), start };
}
