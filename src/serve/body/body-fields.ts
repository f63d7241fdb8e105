/** Reads the fields of a JSON object by name and type. `null` counts as absent, as it does for OpenAI's clients. */

import { isObject } from '../../rows/json-object.ts';
import { HttpError } from '../http-error.ts';

const SHOWN_CHARACTERS = 80;
/** The most unknown fields that are named: a body can hold very many. */
const MAX_UNREAD = 20;

/** Shows a value in an error message: never longer than a line, whatever the client sent. */
export function show(value: unknown): string {
  if (value === undefined) return 'missing';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value === 'string' && value.length > SHOWN_CHARACTERS) {
    return `${JSON.stringify(value.slice(0, SHOWN_CHARACTERS))}… (${value.length} characters)`;
  }
  return JSON.stringify(value);
}

export function badField(name: string, value: unknown, wanted: string): HttpError {
  return HttpError.of('BAD_FIELD', name, name, show(value), wanted);
}

/** Every method throws BAD_FIELD with the field's full name. Fields that were not read are in `unread`. */
export class BodyFields {
  readonly #object: Readonly<Record<string, unknown>>;
  readonly #path: string;
  readonly #read: Set<string> = new Set();
  readonly #children: BodyFields[] = [];

  constructor(object: Readonly<Record<string, unknown>>, path: string = '') {
    this.#object = object;
    this.#path = path;
  }

  /** The field's name in errors. */
  nameOf(name: string): string {
    return this.#path + name;
  }

  /** Returns the raw value; `undefined` if it is absent or `null`. */
  raw(name: string): unknown {
    this.#read.add(name);
    return this.peek(name);
  }

  /** As `raw`, and the field stays unread. */
  peek(name: string): unknown {
    return Object.hasOwn(this.#object, name) ? (this.#object[name] ?? undefined) : undefined;
  }

  /** Whether the field is there, `null` included. */
  has(name: string): boolean {
    return Object.hasOwn(this.#object, name);
  }

  whole(name: string, min: number, max: number): number | null {
    const value = this.raw(name);
    if (value === undefined) return null;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) return value;
    throw badField(this.nameOf(name), value, `a whole number in [${min}, ${max}]`);
  }

  finite(name: string, min: number, max: number): number | null {
    const value = this.raw(name);
    if (value === undefined) return null;
    if (typeof value === 'number' && value >= min && value <= max) return value;
    throw badField(this.nameOf(name), value, `a number in [${min}, ${max}]`);
  }

  flag(name: string, usual: boolean = false): boolean {
    const value = this.raw(name) ?? usual;
    if (typeof value === 'boolean') return value;
    throw badField(this.nameOf(name), value, 'true or false');
  }

  /** A non-empty, well-formed string. */
  text(name: string, maxLength: number): string | null {
    const value = this.raw(name);
    if (value === undefined) return null;
    if (typeof value === 'string' && value !== '' && value.length <= maxLength && value.isWellFormed()) return value;
    throw badField(this.nameOf(name), value, `a string of 1 to ${maxLength} characters`);
  }

  /** A list of token ids in `[0, vocabSize)`. */
  tokenIds(name: string, vocabSize: number, maxLength: number): Uint32Array | null {
    const value = this.raw(name);
    return value === undefined ? null : readTokenIds(this.nameOf(name), value, vocabSize, maxLength);
  }

  /** An object's fields; none if it is absent. */
  object(name: string): BodyFields {
    const value = this.raw(name) ?? {};
    if (!isObject(value)) throw badField(this.nameOf(name), value, 'an object');
    const child = new BodyFields(value, `${this.nameOf(name)}.`);
    this.#children.push(child);
    return child;
  }

  /** The names of the first fields that were sent and not read, here and in the objects inside. */
  unread(): string[] {
    const names: string[] = [];
    for (const name of Object.keys(this.#object)) {
      if (names.length === MAX_UNREAD) break;
      if (this.#read.has(name) || this.#object[name] === null) continue;
      names.push(this.nameOf(name).slice(0, SHOWN_CHARACTERS));
    }
    return [...names, ...this.#children.flatMap((child) => child.unread())].slice(0, MAX_UNREAD);
  }
}

/** Throws BAD_FIELD, with the place of the first wrong id. */
export function readTokenIds(name: string, value: unknown, vocabSize: number, maxLength: number): Uint32Array {
  if (!Array.isArray(value)) throw badField(name, value, 'a list of token ids');
  if (value.length > maxLength) {
    throw badField(name, value, `a list of at most ${maxLength} token ids, the context length`);
  }
  const ids = new Uint32Array(value.length);
  for (let i = 0; i < value.length; i++) {
    const id: unknown = value[i];
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw badField(`${name}[${i}]`, id ?? null, `a token id in [0, ${vocabSize})`);
    }
    ids[i] = id;
  }
  return ids;
}
