/**
 * Ids in as few bits as the number of experts needs, in their order: id i has the bits [i·b, (i + 1)·b) of a bit
 * string whose bit n is bit n mod 8 of byte ⌊n / 8⌋.
 *
 *     b = 5   byte 0  [ id 1 ▸ 2 1 0 │ id 0 ▸ 4 3 2 1 0 ]     byte 1  [ id 3 ▸ 0 │ id 2 ▸ 4 3 2 1 0 │ id 1 ▸ 4 3 ]
 *
 * Four narrow ids, a word of memory, are brought together at a time: an id by itself would take several times as long.
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

/**
 * Packs the first `numIds` of `ids` and returns the bytes: a view of `target`, which must hold whole words. `ids` must
 * begin at a word and have whole words; those behind `numIds` are overwritten with zeros. Returns `null` for an id that
 * has more than `bits` bits.
 */
export function packIds(ids: NarrowIds, numIds: number, bits: number, target: Uint32Array): Uint8Array | null {
  const perWord = 4 / ids.BYTES_PER_ELEMENT;
  const numWords = Math.ceil(numIds / perWord);
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

function packBytes(words: Uint32Array, bits: number, target: Uint32Array): number {
  const [gapOfTwo, gapOfFour] = [8 - bits, 16 - 2 * bits];
  const width = 4 * bits;
  let pending = 0;
  let numPending = 0;
  let at = 0;
  let seen = 0;
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    seen |= word;
    // Pairs of ids move together, then pairs of pairs.
    const twos = (word & 0x00ff00ff) | ((word & 0xff00ff00) >>> gapOfTwo);
    const four = (twos & 0xffff) | ((twos & 0xffff0000) >>> gapOfFour);
    pending |= four << numPending;
    numPending += width;
    if (numPending < 32) continue;
    target[at++] = pending;
    numPending -= 32;
    pending = four >>> (width - numPending);
  }
  if (numPending > 0) target[at] = pending;
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
