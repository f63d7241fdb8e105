/** vLLM's form: base64 of a NumPy `.npy` file, `np.load(io.BytesIO(base64.b64decode(s)))`. */

import type { RoutedRows } from '../contract/routed-rows.ts';
import type { JsonParts } from './json-parts.ts';
import { base64String } from './json-parts.ts';
import { rowPieces } from './row-pieces.ts';
import { unsignedDtype } from './unsigned-dtype.ts';

/** NumPy keeps room for the first dimension to grow to this many digits, so that a file can be appended to in place. */
const GROWTH_DIGITS = 21;
const ALIGNMENT = 64;
/** Magic, version and length of the header. */
const PREFIX_BYTES = 10;

/** Format 1.0, byte for byte what `numpy.lib.format` of NumPy 1.23–2.4 writes for a C-ordered array. */
export function npyHeader(descr: '|u1' | '<u2', shape: readonly number[]): Uint8Array {
  const dictionary = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.join(', ')}), }`;
  const roomToGrow = ' '.repeat(GROWTH_DIGITS - String(shape[0]).length);
  const unpadded = PREFIX_BYTES + dictionary.length + roomToGrow.length + 1;
  const padding = ' '.repeat(ALIGNMENT - (unpadded % ALIGNMENT));
  const text = `${dictionary}${roomToGrow}${padding}\n`;
  const header = Buffer.alloc(PREFIX_BYTES + text.length);
  header.write('\u{93}NUMPY\u{1}\u{0}', 'latin1');
  header.writeUInt16LE(text.length, 8);
  header.write(text, PREFIX_BYTES, 'latin1');
  return header;
}

/** One member, `routed_experts`. */
export function* npyMembers(rows: RoutedRows, numExperts: number): Generator<readonly [string, JsonParts]> {
  const { dtype, fill } = unsignedDtype(rows, numExperts);
  const header = npyHeader(dtype === 'uint8' ? '|u1' : '<u2', [rows.count, rows.numLayers, rows.topK]);
  yield ['routed_experts', base64String(rowPieces(rows, dtype, fill, header))];
}
