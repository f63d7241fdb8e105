/**
 * NeMo-RL's form: `nrlre1:<dtype>:<S>x<L>x<K>:<base64>`, of signed types; a row of −1 says "route it yourself".
 *
 * Its reader wants a row of every token. The last token was never an input (L1): its row is `0 … K − 1` in each layer,
 * as NeMo-RL's own server makes it up, and the next turn's answer has another in its place. Reading leaves it out.
 */

import type { RoutedRows } from '../../contract/routed-rows.ts';
import { isObject, type JsonObject } from '../json-object.ts';
import type { JsonParts } from '../json-parts.ts';
import { base64String } from '../json-parts.ts';
import { rowPieces } from '../row-pieces.ts';
import type { WireDtype } from '../row-pieces.ts';
import type { WireElements } from './wire-elements.ts';
import { wireBytes, wireShape } from './wire-elements.ts';

/** One member, `routed_experts`. */
export function* nrlre1Members(rows: RoutedRows, numExperts: number): Generator<readonly [string, JsonParts]> {
  const dtype: WireDtype = numExperts <= 128 ? 'int8' : numExperts <= 32_768 ? 'int16' : 'int32';
  const tail = Uint16Array.from({ length: rows.numLayers * rows.topK }, (_, i) => i % rows.topK);
  const prefix = `nrlre1:${dtype}:${rows.count + 1}x${rows.numLayers}x${rows.topK}:`;
  yield ['routed_experts', base64String(rowPieces(rows, dtype, -1, { tail }), prefix)];
}

/** In a chat's message or its part of a stream; in other choices the choice itself. */
function placeOfNrlre1(choice: JsonObject): JsonObject {
  const { message, delta } = choice;
  return isObject(message) ? message : isObject(delta) ? delta : choice;
}

const BEGINNING = /^nrlre1:(int8|int16|int32):(\d+)x(\d+)x(\d+):/;
const MOST_BEGINNING_CHARACTERS = 100;

/** Throws an Error for what is not of this form. */
export function readNrlre1(choice: JsonObject): WireElements {
  const { routed_experts: text } = placeOfNrlre1(choice);
  const match = typeof text === 'string' ? BEGINNING.exec(text.slice(0, MOST_BEGINNING_CHARACTERS)) : null;
  if (match === null) throw new Error('its rows do not begin like nrlre1');
  const bytes = wireBytes((text as string).slice(match[0].length));
  const [numRows, numLayers, topK] = wireShape(match.slice(2, 5).map(Number));
  if (numRows === 0) throw new Error('it has no row of the last token');
  const lastRow = (bytes.length / numRows) * (numRows - 1);
  return {
    dtype: match[1] as WireDtype,
    bytes: bytes.slice(0, lastRow),
    shape: [numRows - 1, numLayers, topK],
    start: null,
  };
}
