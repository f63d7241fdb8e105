/** NeMo-RL's form: `nrlre1:<dtype>:<S>x<L>x<K>:<base64>`, of signed types; a row of −1 says "route it yourself". */

import type { RoutedRows } from '../contract/routed-rows.ts';
import type { JsonParts } from './json-parts.ts';
import { base64String } from './json-parts.ts';
import { rowPieces } from './row-pieces.ts';
import type { WireDtype } from './row-pieces.ts';

/** One member, `routed_experts`. */
export function* nrlre1Members(rows: RoutedRows, numExperts: number): Generator<readonly [string, JsonParts]> {
  const dtype: WireDtype = numExperts <= 128 ? 'int8' : numExperts <= 32_768 ? 'int16' : 'int32';
  const prefix = `nrlre1:${dtype}:${rows.count}x${rows.numLayers}x${rows.topK}:`;
  yield ['routed_experts', base64String(rowPieces(rows, dtype, -1), prefix)];
}
