/**
 * SGLang's form, which slime and miles read too: base64 of raw int32 without a shape, in `meta_info`. A missing row is
 * −1.
 */

import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { JsonObject } from '../json-object.ts';
import { isObject } from '../json-object.ts';
import type { JsonParts } from '../json-parts.ts';
import { base64String } from '../json-parts.ts';
import { rowPieces } from '../row-pieces.ts';
import type { WireElements } from './wire-elements.ts';
import { wireBytes } from './wire-elements.ts';

/** Three members of `meta_info`: `routed_experts`, what its elements are, and the position of the first row. */
export function* sglangMembers(rows: RoutedRows): Generator<readonly [string, JsonParts]> {
  yield ['routed_experts', base64String(rowPieces(rows, 'int32', -1))];
  yield ['routed_experts_dtype', ['"int32"']];
  yield ['routed_experts_start_len', [String(rows.start)]];
}

/** Throws an Error for what is not of this form. */
export function readSglang({ meta_info: meta }: JsonObject): WireElements {
  if (!isObject(meta)) throw new Error('it has no meta_info');
  return { dtype: 'int32', bytes: wireBytes(meta['routed_experts']), shape: null, start: null };
}
