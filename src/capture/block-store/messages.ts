/**
 * What the halves of `block-store` tell each other.
 *
 * The engine half sends with a step only what is new:
 *
 *     metadata    [ generation ][ n ][ words of a hash ] then n × entry
 *     entry       [ request ][ emitStart ][ first ordinal ][ number of hashes ][ hash, hash, … ]
 *
 *     emitStart   rows before it have reached the engine or are on their way to it; NOT_WANTED: it did not opt in
 *     hashes      of the request's blocks `first ordinal …`; each is sent once in a stay of the request in the batch
 *
 * The worker half sends spans: rows of requests that sampled, from `emitStart` to the last accepted token.
 */

export const NOT_WANTED = 0xffff_ffff;

const HEADER_LENGTH = 3;
const ENTRY_LENGTH = 4;

/** As it is sent: `hashes` is a view of the request's own. */
export type OutgoingEntry = Readonly<{
  requestIndex: number;
  emitStart: number;
  firstOrdinal: number;
  hashes: Uint32Array;
}>;

/** As it arrives: hashes as map keys. */
export type IncomingEntry = Readonly<{ emitStart: number; firstOrdinal: number; hashes: readonly string[] }>;

export type Metadata = Readonly<{ generation: number; entries: ReadonlyMap<number, IncomingEntry> }>;

export function writeMetadata(generation: number, hashWords: number, entries: readonly OutgoingEntry[]): Uint32Array {
  let numWords = HEADER_LENGTH + ENTRY_LENGTH * entries.length;
  for (const { hashes } of entries) numWords += hashes.length;
  const words = new Uint32Array(numWords);
  words[0] = generation;
  words[1] = entries.length;
  words[2] = hashWords;
  let at = HEADER_LENGTH;
  for (const { requestIndex, emitStart, firstOrdinal, hashes } of entries) {
    words[at] = requestIndex;
    words[at + 1] = emitStart;
    words[at + 2] = firstOrdinal;
    words[at + 3] = hashWords === 0 ? 0 : hashes.length / hashWords;
    words.set(hashes, at + ENTRY_LENGTH);
    at += ENTRY_LENGTH + hashes.length;
  }
  return words;
}

/** By request index. */
export function readMetadata(words: Uint32Array | null): Metadata {
  const entries = new Map<number, IncomingEntry>();
  if (words === null) return { generation: 0, entries };
  const hashWords = words[2]!;
  let at = HEADER_LENGTH;
  for (let i = 0; i < words[1]!; i++) {
    const numHashes = words[at + 3]!;
    const firstHash = at + ENTRY_LENGTH;
    const hashes = Array.from({ length: numHashes }, (_, h) => hashKey(words, firstHash + h * hashWords, hashWords));
    entries.set(words[at]!, { emitStart: words[at + 1]!, firstOrdinal: words[at + 2]!, hashes });
    at = firstHash + numHashes * hashWords;
  }
  return { generation: words[0]!, entries };
}

/** A hash as a map key: two characters a word. */
export function hashKey(hashes: Uint32Array, at: number, hashWords: number): string {
  let key = '';
  for (let i = 0; i < hashWords; i++) key += String.fromCharCode(hashes[at + i]! >>> 16, hashes[at + i]! & 0xffff);
  return key;
}
