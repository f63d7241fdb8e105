/** A JSON value that is written a part at a time. The parts, joined, are the value's JSON text. */

import { encodeBase64 } from './base64.ts';

/** The text in parts, so that its writer can yield in between. */
export type JsonParts = Iterable<string>;

/**
 * The base64 of `pieces` as a JSON string. Each piece but the last must be a multiple of 3 bytes; base64 needs no
 * escapes.
 */
export function* base64String(pieces: Iterable<Uint8Array>, prefix: string = ''): Generator<string> {
  yield `"${prefix}`;
  for (const piece of pieces) yield encodeBase64(piece);
  yield '"';
}

/** The members of `object`, followed by `extra` members whose values come in parts. */
export function* objectWith(
  object: Readonly<Record<string, unknown>>,
  extra: Iterable<readonly [key: string, value: JsonParts]>,
): Generator<string> {
  const known = JSON.stringify(object);
  let separator = known === '{}' ? '' : ',';
  yield known.slice(0, -1);
  for (const [key, value] of extra) {
    yield `${separator}${JSON.stringify(key)}:`;
    yield* value;
    separator = ',';
  }
  yield '}';
}
