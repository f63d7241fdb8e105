/** NeMo-RL's form: `nrlre1:<dtype>:<S>x<L>x<K>:<base64>`, of signed types; a row of −1 says "route it yourself". */

import type { RoutedRows } from '../contract/routed-rows.ts';
import type { JsonObject } from './json-object.ts';
import type { JsonParts } from './json-parts.ts';
import { base64String } from './json-parts.ts';
import { rowPieces } from './row-pieces.ts';
import type { WireDtype } from './row-pieces.ts';
import type { WireElements } from './wire-elements.ts';
import { wireBytes, wireShape } from './wire-elements.ts';

/** One member, `routed_experts`. */
export function* nrlre1Members(rows: RoutedRows, numExperts: number): Generator<readonly [string, JsonParts]> {
  const dtype: WireDtype = numExperts <= 128 ? 'int8' : numExperts <= 32_768 ? 'int16' : 'int32';
  const prefix = `nrlre1:${dtype}:${rows.count}x${rows.numLayers}x${rows.topK}:`;
  yield ['routed_experts', base64String(rowPieces(rows, dtype, -1), prefix)];
}

const BEGINNING = /^nrlre1:(int8|int16|int32):(\d+)x(\d+)x(\d+):/;
const MOST_BEGINNING_CHARACTERS = 100;

/** Throws an Error for what is not of this form. */
export function readNrlre1({ routed_experts: text }: JsonObject): WireElements {
  const match = typeof text === 'string' ? BEGINNING.exec(text.slice(0, MOST_BEGINNING_CHARACTERS)) : null;
  if (match === null) throw new Error('its rows do not begin like nrlre1');
  return {
    dtype: match[1] as WireDtype,
    bytes: wireBytes((text as string).slice(match[0].length)),
    shape: wireShape(match.slice(2, 5).map(Number)),
    start: null,
  };
}
