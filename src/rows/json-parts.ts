/** A JSON value that is written a part at a time. The parts, joined, are the value's JSON text. */

import { encodeBase64 } from './base64.ts';
import { isObject } from './json-object.ts';

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

/** A value inside of an object or a list whose text comes in parts. */
export class InParts {
  readonly parts: JsonParts;

  constructor(parts: JsonParts) {
    this.parts = parts;
  }
}

/** The JSON text of `value`, with `InParts` in objects and lists; members that are `undefined` are left out. */
export function* jsonText(value: unknown): Generator<string> {
  if (value instanceof InParts) {
    yield* value.parts;
  } else if (Array.isArray(value) && value.some(isNested)) {
    let separator = '[';
    for (const item of value as readonly unknown[]) {
      yield separator;
      yield* jsonText(item);
      separator = ',';
    }
    yield ']';
  } else if (isObject(value) && Object.values(value).some(isNested)) {
    let separator = '{';
    for (const [key, member] of Object.entries(value)) {
      if (member === undefined) continue;
      yield `${separator}${JSON.stringify(key)}:`;
      yield* jsonText(member);
      separator = ',';
    }
    yield separator === '{' ? '{}' : '}';
  } else {
    yield JSON.stringify(value);
  }
}

/** Whether `InParts` may be inside. */
function isNested(value: unknown): boolean {
  return isObject(value) || (Array.isArray(value) && isNested(value[0]));
}

/** A list whose items are made and written a few at a time, so that a long one does not hold up its thread. */
export function longList<T>(items: readonly T[], toJson: (item: T, index: number) => unknown): InParts {
  return new InParts(listParts(items, toJson));
}

const ITEMS_PER_PART = 1024;

function* listParts<T>(items: readonly T[], toJson: (item: T, index: number) => unknown): Generator<string> {
  yield '[';
  for (let from = 0; from < items.length; from += ITEMS_PER_PART) {
    const part = items.slice(from, from + ITEMS_PER_PART).map((item, i) => toJson(item, from + i));
    yield (from === 0 ? '' : ',') + JSON.stringify(part).slice(1, -1);
  }
  yield ']';
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
