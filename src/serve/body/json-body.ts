/** Parses request bodies: JSON objects in UTF-8, of bounded depth. */

import { isUtf8 } from 'node:buffer';
import { isObject } from '../../rows/json-object.ts';
import { HttpError } from '../http-error.ts';

const MAX_DEPTH = 32;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Throws BAD_JSON. */
export function parseJsonBody(body: Buffer): Readonly<Record<string, unknown>> {
  if (body.length === 0) throw HttpError.of('BAD_JSON', null, 'it is empty');
  if (!isUtf8(body)) throw HttpError.of('BAD_JSON', null, 'it is not UTF-8');
  if (depthOf(body) > MAX_DEPTH) throw HttpError.of('BAD_JSON', null, `it is nested deeper than ${MAX_DEPTH} levels`);
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch (error) {
    // V8's message quotes the body; the place of the error is enough.
    const place = /position \d+/.exec((error as Error).message)?.[0] ?? 'its end';
    throw HttpError.of('BAD_JSON', null, `syntax error at ${place}`);
  }
  if (isObject(value)) return value;
  throw HttpError.of('BAD_JSON', null, 'it is not an object');
}

/** Returns how deep brackets are nested outside of strings; checked before the body is parsed. */
function depthOf(body: Buffer): number {
  let depth = 0;
  let deepest = 0;
  let isString = false;
  for (let i = 0; i < body.length; i++) {
    const byte = body[i]!;
    if (isString) {
      if (byte === BACKSLASH) i++;
      else if (byte === QUOTE) isString = false;
    } else if (byte === QUOTE) isString = true;
    else if (byte === 0x5b || byte === 0x7b) deepest = Math.max(deepest, ++depth);
    else if (byte === 0x5d || byte === 0x7d) depth--;
  }
  return deepest;
}
