/** vLLM's form: base64 of a NumPy `.npy` file, `np.load(io.BytesIO(base64.b64decode(s)))`. */

import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { JsonObject } from '../json-object.ts';
import type { JsonParts } from '../json-parts.ts';
import { base64String } from '../json-parts.ts';
import { rowPieces } from '../row-pieces.ts';
import { unsignedDtype } from './unsigned-dtype.ts';
import type { WireElements } from './wire-elements.ts';
import { wireBytes, wireShape } from './wire-elements.ts';

/** NumPy keeps room for the first dimension to grow to this many digits, so that a file can be appended to in place. */
const GROWTH_DIGITS = 21;
const ALIGNMENT = 64;
/** Magic, version and length of the header. */
const PREFIX_BYTES = 10;
/** Magic and version 1.0, as Latin-1. */
const MAGIC = '\u{93}NUMPY\u{1}\u{0}';

/** Format 1.0, byte for byte what `numpy.lib.format` of NumPy 1.23–2.4 writes for a C-ordered array. */
export function npyHeader(descr: '|u1' | '<u2', shape: readonly number[]): Uint8Array {
  const dictionary = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.join(', ')}), }`;
  const roomToGrow = ' '.repeat(GROWTH_DIGITS - String(shape[0]).length);
  const unpadded = PREFIX_BYTES + dictionary.length + roomToGrow.length + 1;
  const padding = ' '.repeat(ALIGNMENT - (unpadded % ALIGNMENT));
  const text = `${dictionary}${roomToGrow}${padding}\n`;
  const length = String.fromCharCode(text.length & 0xff, text.length >> 8);
  return Uint8Array.from(`${MAGIC}${length}${text}`, (character) => character.charCodeAt(0));
}

/** One member, `routed_experts`. */
export function* npyMembers(rows: RoutedRows, numExperts: number): Generator<readonly [string, JsonParts]> {
  const { dtype, fill } = unsignedDtype(rows, numExperts);
  const header = npyHeader(dtype === 'uint8' ? '|u1' : '<u2', [rows.count, rows.numLayers, rows.topK]);
  yield ['routed_experts', base64String(rowPieces(rows, dtype, fill, { header }))];
}

/** Throws an Error for what is not base64 of such a file, of dtype u1 or u2 and three dimensions. */
export function readNpy({ routed_experts: text }: JsonObject): WireElements {
  const file = wireBytes(text);
  if (latin1(file, 0, MAGIC.length) !== MAGIC) throw new Error('its rows are no .npy file of version 1.0');
  const dataStart = PREFIX_BYTES + file[8]! + 256 * file[9]!;
  const header = latin1(file, PREFIX_BYTES, dataStart);
  const match = /'descr': '(\|u1|<u2)', 'fortran_order': False, 'shape': \((\d+), (\d+), (\d+)\)/.exec(header);
  if (match === null) throw new Error('its .npy header says no u1 or u2 of three dimensions');
  return {
    dtype: match[1] === '|u1' ? 'uint8' : 'uint16',
    bytes: file.slice(dataStart),
    shape: wireShape(match.slice(2, 5).map(Number)),
    start: null,
  };
}

function latin1(bytes: Uint8Array, from: number, to: number): string {
  return String.fromCharCode(...bytes.subarray(from, to));
}
