/**
 * An answer on its way through the proxy, with the rows of the server that prefilled put in: one JSON object, or
 * events.
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { isObject } from '../../rows/json-object.ts';
import type { JsonParts } from '../../rows/json-parts.ts';
import { objectWith } from '../../rows/json-parts.ts';
import type { Splicer } from './splice.ts';

type Chunks = AsyncIterable<Uint8Array | string>;

/** Longer texts are refused: they could not be one string. */
const MAX_CHARACTERS = 2 ** 29 - 2 ** 16;

/** Reads a body to its end. Rejects if it is too long to be read, or breaks off. */
export async function readText(body: Chunks): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of body) {
    text += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true });
    if (text.length > MAX_CHARACTERS) throw new Error('its answer is too long');
  }
  return text + decoder.decode();
}

/** The first chunk of a body as text, and the body, which is still whole. */
export async function peek(
  body: AsyncIterable<Uint8Array>,
): Promise<Readonly<{ beginning: string; whole: AsyncIterable<Uint8Array> }>> {
  const chunks = body[Symbol.asyncIterator]();
  const first = await chunks.next();
  async function* whole(): AsyncGenerator<Uint8Array> {
    if (first.done === true) return;
    yield first.value;
    yield* { [Symbol.asyncIterator]: () => chunks };
  }
  return { beginning: first.done === true ? '' : new TextDecoder().decode(first.value), whole: whole() };
}

/** Throws an Error, before its first part, for an answer that cannot be read. */
export async function splicedJson(body: Chunks, splicer: Splicer): Promise<AsyncGenerator<string>> {
  return inTurns(splicedObject(JSON.parse(await readText(body)), splicer));
}

/**
 * Events as they come. One without missing rows passes as it is; one with them is held until it is whole. Rejects for
 * rows that cannot be read: the answer must not end as if it were complete.
 */
export async function* splicedEvents(body: Chunks, splicer: Splicer): AsyncGenerator<string> {
  for await (const event of events(body)) {
    if (!event.includes('"routed_experts_missing":[[')) {
      yield event;
      continue;
    }
    yield 'data: ';
    yield* inTurns(splicedObject(JSON.parse(event.slice(event.indexOf('{'))), splicer));
    yield '\n\n';
  }
}

/** Each with the empty line behind it; what is left at the end as it is. */
async function* events(body: Chunks): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let held: string[] = [];
  let numHeld = 0;
  let endsInBreak = false;
  for await (const chunk of body) {
    const text = typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true });
    let from = 0;
    // The end of an event is looked for in what is new: an event can be millions of characters in thousands of chunks.
    for (let at = endsInBreak && text.startsWith('\n') ? 1 : eventEnd(text, 0); at > 0; at = eventEnd(text, from)) {
      held.push(text.slice(from, at));
      yield held.join('');
      held = [];
      numHeld = 0;
      from = at;
    }
    if (from < text.length) held.push(text.slice(from));
    numHeld += text.length - from;
    if (numHeld > MAX_CHARACTERS) throw new Error('an event of its answer is too long');
    endsInBreak = held.at(-1)?.endsWith('\n') ?? false;
  }
  if (held.length > 0) yield held.join('');
}

/** Behind the next empty line, or 0. */
function eventEnd(text: string, from: number): number {
  const at = text.indexOf('\n\n', from);
  return at < 0 ? 0 : at + 2;
}

function splicedObject(value: unknown, splicer: Splicer): JsonParts {
  if (!isObject(value) || !Array.isArray(value['choices'])) throw new Error('its answer has no choices');
  const { choices, ...rest } = value;
  const parts = (choices as readonly unknown[]).map((choice): JsonParts => {
    const hasRows = isObject(choice) && Array.isArray(choice['routed_experts_missing']);
    return hasRows ? splicer.choice(choice) : [JSON.stringify(choice)];
  });
  return objectWith(rest, [['choices', list(parts)]]);
}

function* list(items: readonly JsonParts[]): Generator<string> {
  for (const [i, item] of items.entries()) {
    yield i === 0 ? '[' : ',';
    yield* item;
  }
  yield items.length === 0 ? '[]' : ']';
}

async function* inTurns(parts: JsonParts): AsyncGenerator<string> {
  for (const part of parts) {
    yield part;
    if (part.length > 2 ** 16) await nextTurn();
  }
}
