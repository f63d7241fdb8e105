/** The `packed` form as a choice has it: the base64 of the bytes of `packed/packed-layout.ts`. */

import { allocateRows } from '../../capture/row-shape.ts';
import { toArray } from '../../capture/routed-rows.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { JsonObject } from '../json-object.ts';
import { base64String, type JsonParts } from '../json-parts.ts';
import { decodePacked, type ReadPackedOptions } from '../packed/read-packed.ts';
import { packedParts, type PackOptions } from '../packed/write-packed.ts';
import { wireBytes, type WireElements } from './wire-elements.ts';

/** One member, `routed_experts`. */
export function* packedMembers(rows: RoutedRows, options: PackOptions): Generator<readonly [string, JsonParts]> {
  yield ['routed_experts', base64String(inThrees(packedParts(rows, options)))];
}

/** Throws an Error for what is not of this form. */
export function readPackedChoice({ routed_experts: text }: JsonObject, options: ReadPackedOptions): WireElements {
  const { rows, bits } = decodePacked(wireBytes(text), options);
  const { start, count, numLayers, topK } = rows;
  const dtype = rows.dtype === 'uint8' ? 'uint8' : 'uint16';
  const ids = rows.chunks[0] === undefined ? allocateRows(rows, 0) : toArray(rows, 0);
  const bytes = new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
  return { dtype, bytes, shape: [count, numLayers, topK], start, missing: rows.missing, numExperts: 2 ** bits };
}

/** The same bytes, each part but the last a multiple of 3 long: base64 has then no padding inside. */
function* inThrees(parts: Iterable<Uint8Array>): Generator<Uint8Array> {
  let rest = new Uint8Array(0);
  for (const part of parts) {
    const joined = new Uint8Array(rest.length + part.length);
    joined.set(rest);
    joined.set(part, rest.length);
    const whole = joined.length - (joined.length % 3);
    if (whole > 0) yield joined.subarray(0, whole);
    rest = joined.slice(whole);
  }
  yield rest;
}
