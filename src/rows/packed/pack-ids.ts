/**
 * Ids in as few bits as the number of experts needs, in their order: id i has the bits [i·b, (i + 1)·b) of a bit
 * string whose bit n is bit n mod 8 of byte ⌊n / 8⌋.
 *
 *     b = 5   byte 0  [ id 1 ▸ 2 1 0 │ id 0 ▸ 4 3 2 1 0 ]     byte 1  [ id 3 ▸ 0 │ id 2 ▸ 4 3 2 1 0 │ id 1 ▸ 4 3 ]
 *
 * The ids of a word of memory are brought together at a time: an id by itself would take several times as long.
 */

/** Bits of an id: ⌈log2 numExperts⌉, at least 1. */
export function bitsOfId(numExperts: number): number {
  return Math.max(1, 32 - Math.clz32(numExperts - 1));
}

/** Bytes of `numIds` ids of `bits` bits. */
export function packedBytes(numIds: number, bits: number): number {
  return Math.ceil((numIds * bits) / 8);
}

/** Ids of up to 8 bits are bytes, wider ones u16. */
export type NarrowIds = Uint8Array | Uint16Array;

/** An array of narrow ids. */
export function narrowIds(bits: number, length: number): NarrowIds {
  return bits <= 8 ? new Uint8Array(length) : new Uint16Array(length);
}

/** Ids are packed in groups of so many. */
export const GROUP_IDS = 8;

/** Words of a target for `packIds`: packing writes a group's words whole. */
export function targetWords(numIds: number, bits: number): number {
  return Math.ceil(((numIds + GROUP_IDS) * bits) / 32) + 2;
}

/**
 * Packs the first `numIds` of `ids` and returns the bytes: a view of `target`, of `targetWords`. `ids` must begin at a
 * word and have whole groups; those behind `numIds` are overwritten with zeros. Returns `null` for an id that has more
 * than `bits` bits.
 */
export function packIds(ids: NarrowIds, numIds: number, bits: number, target: Uint32Array): Uint8Array | null {
  const perWord = 4 / ids.BYTES_PER_ELEMENT;
  const numWords = (GROUP_IDS / perWord) * Math.ceil(numIds / GROUP_IDS);
  ids.fill(0, numIds, numWords * perWord);
  const words = new Uint32Array(ids.buffer, ids.byteOffset, numWords);
  const seen = bits === 32 / perWord ? copyWords(words, target) : PACKERS[perWord]!(words, bits, target);
  if (seen >>> bits !== 0) return null;
  return new Uint8Array(target.buffer, target.byteOffset, packedBytes(numIds, bits));
}

/** Each returns all ids of the words, or-ed together. */
const PACKERS: Readonly<Record<number, (words: Uint32Array, bits: number, target: Uint32Array) => number>> = {
  4: packBytes,
  2: packPairs,
};

function copyWords(words: Uint32Array, target: Uint32Array): number {
  target.set(words);
  return 0;
}

/** Eight ids fill `bits` bytes: whole groups are written, each over the empty end of the one before. */
function packBytes(words: Uint32Array, bits: number, target: Uint32Array): number {
  const bytes = new DataView(target.buffer, target.byteOffset, target.byteLength);
  const width = 4 * bits;
  const [gapOfTwo, gapOfFour, rest] = [8 - bits, 16 - 2 * bits, 32 - width];
  let seen = 0;
  for (let i = 0, at = 0; i < words.length; i += 2, at += bits) {
    const first = words[i]!;
    const second = words[i + 1]!;
    seen |= first | second;
    // Pairs of ids move together, then pairs of pairs.
    const firstTwos = (first & 0x00ff00ff) | ((first & 0xff00ff00) >>> gapOfTwo);
    const secondTwos = (second & 0x00ff00ff) | ((second & 0xff00ff00) >>> gapOfTwo);
    const firstFour = (firstTwos & 0xffff) | ((firstTwos & 0xffff0000) >>> gapOfFour);
    const secondFour = (secondTwos & 0xffff) | ((secondTwos & 0xffff0000) >>> gapOfFour);
    bytes.setInt32(at, firstFour | (secondFour << width), true);
    bytes.setInt32(at + 4, secondFour >>> rest, true);
  }
  return (seen | (seen >>> 8) | (seen >>> 16) | (seen >>> 24)) & 0xff;
}

function packPairs(words: Uint32Array, bits: number, target: Uint32Array): number {
  const gap = 16 - bits;
  const width = 2 * bits;
  let pending = 0;
  let numPending = 0;
  let at = 0;
  let seen = 0;
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    seen |= word;
    const two = (word & 0xffff) | ((word & 0xffff0000) >>> gap);
    pending |= two << numPending;
    numPending += width;
    if (numPending < 32) continue;
    target[at++] = pending;
    numPending -= 32;
    pending = two >>> (width - numPending);
  }
  if (numPending > 0) target[at] = pending;
  return (seen | (seen >>> 16)) & 0xffff;
}

/** Reads `target.length` ids of `bits` bits. */
export function unpackIds(bytes: Uint8Array, bits: number, target: NarrowIds): void {
  const mask = 2 ** bits - 1;
  let pending = 0;
  let numPending = 0;
  let at = 0;
  for (let i = 0; i < target.length; i++) {
    while (numPending < bits) {
      pending |= bytes[at++]! << numPending;
      numPending += 8;
    }
    target[i] = pending & mask;
    pending >>>= bits;
    numPending -= bits;
  }
}
