/**
 * The form of prime-rl, verifiers and SkyRL: `{"data": base64, "shape": [S, L, K], "start": n, "dtype": "uint8" |
 * "uint16"}`.
 */

import type { RoutedRows } from '../contract/routed-rows.ts';
import type { JsonParts } from './json-parts.ts';
import { base64String, objectWith } from './json-parts.ts';
import { rowPieces } from './row-pieces.ts';
import { unsignedDtype } from './unsigned-dtype.ts';

/** One member, `routed_experts`. */
export function* objectMembers(rows: RoutedRows, numExperts: number): Generator<readonly [string, JsonParts]> {
  const { dtype, fill } = unsignedDtype(rows, numExperts);
  const shape = [rows.count, rows.numLayers, rows.topK];
  const data = base64String(rowPieces(rows, dtype, fill));
  yield ['routed_experts', objectWith({ shape, start: rows.start, dtype }, [['data', data]])];
}
