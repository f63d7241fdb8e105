/**
 * Objects with a shape: `{"data": base64, "shape": [S, L, K], "start": n, "dtype": …}`, in this order, since one reader
 * cuts `{"data":"` out of the text unparsed. The element type is the narrowest for the largest id that is there.
 *
 *     `object`   uint8 or uint16, for prime-rl and verifiers
 *     `signed`   uint8, int16 or int32, for SkyRL, which refuses any other; it knows no missing rows and no start
 */

import { presentPieces } from '../../capture/routed-rows.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { isObject, type JsonObject } from '../json-object.ts';
import { base64String, type JsonParts } from '../json-parts.ts';
import { rowPieces, type WireDtype } from '../row-pieces.ts';
import { unsignedDtype } from './unsigned-dtype.ts';
import { isSize, wireBytes, wireShape, type WireElements } from './wire-elements.ts';

type Members = Generator<readonly [string, JsonParts]>;

/** One member, `routed_experts`. */
export function* objectMembers(rows: RoutedRows, numExperts: number): Members {
  const isComplete = rows.missing.length === 0;
  const { dtype, fill } = unsignedDtype(rows, isComplete && !hasIdFrom(256, rows) ? 256 : numExperts);
  yield ['routed_experts', dataFirst(rows, dtype, fill)];
}

/** One member, `routed_experts`. Throws ROWS_MISSING. */
export function* signedMembers(rows: RoutedRows): Members {
  if (rows.missing.length > 0) throw RoutedExpertsError.of('ROWS_MISSING', 'signed', rows.missing);
  const dtype = !hasIdFrom(256, rows) ? 'uint8' : !hasIdFrom(32_768, rows) ? 'int16' : 'int32';
  yield ['routed_experts', dataFirst(rows, dtype, 0)];
}

function* dataFirst(rows: RoutedRows, dtype: WireDtype, fill: number): Generator<string> {
  const { start, count, numLayers, topK } = rows;
  yield '{"data":';
  yield* base64String(rowPieces(rows, dtype, fill));
  yield `,${JSON.stringify({ shape: [count, numLayers, topK], start, dtype }).slice(1)}`;
}

/** Whether an id is `least` or more. Where a model has such experts, one of the first rows nearly always names one. */
function hasIdFrom(least: number, rows: RoutedRows): boolean {
  if (rows.dtype === 'uint8') return false;
  for (const piece of presentPieces(rows)) if (piece.rows.some((id) => id >= least)) return true;
  return false;
}

/** Throws an Error for what is not of this form. `start` may be absent. */
export function readObject(choice: JsonObject): WireElements {
  return readElements(choice, ['uint8', 'uint16']);
}

/** Throws an Error for what is not of this form. `start` may be absent. */
export function readSigned(choice: JsonObject): WireElements {
  return readElements(choice, ['uint8', 'int16', 'int32']);
}

function readElements({ routed_experts: value }: JsonObject, dtypes: readonly WireDtype[]): WireElements {
  if (!isObject(value)) throw new Error('its rows are no object');
  const { dtype, shape, data, start = null } = value;
  const known = dtypes.find((name) => name === dtype);
  if (known === undefined) throw new Error(`its rows are of dtype ${String(dtype)}`);
  if (start !== null && !isSize(start)) throw new Error('its rows start at no position');
  return { dtype: known, bytes: wireBytes(data), shape: wireShape(shape), start };
}
