/**
 * Hashes of full KV blocks, chained: a block's hash stands for every token up to its end.
 *
 *     H(block i) = H(parent = H(block i − 1), tokens of block i, extra keys)      extra keys: the cache salt, first block only
 *
 * A hash is `words` u32 in a caller's array, so that hashing a block allocates nothing. Two hashers: `fastBlockHasher`
 * for the scheduler, `sha256BlockHasher` where hashes leave the process (`vllm/v1/core/kv_cache_utils.py`,
 * `sha256_cbor`).
 */

import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex } from '@noble/hashes/utils.js';

export interface BlockHasher {
  readonly name: string;
  /** u32 words of one hash. */
  readonly words: number;
  /**
   * Hashes `tokens[from … to)` and writes `words` u32 to `hashes` at `at`. The parent's hash stands right before it, at
   * `at − words`; `at = 0` is a first block. `salt` is the extra key, or `null`.
   */
  hash(tokens: Uint32Array, from: number, to: number, salt: string | null, hashes: Uint32Array, at: number): void;
}

const finalMix = (value: number): number => {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
};

/**
 * 128 bits in four u32 lanes, in the manner of MurmurHash3. Among 2^32 different prefixes a collision has probability
 * 2^-65. It is not cryptographic: where tenants who may attack each other share one cache, give each a salt or use
 * `sha256BlockHasher`.
 */
export const fastBlockHasher: BlockHasher = {
  name: 'fast128',
  words: 4,
  hash(tokens, from, to, salt, hashes, at) {
    let a = 0x9e3779b9 | 0;
    let b = 0x243f6a88 | 0;
    let c = 0xb7e15162 | 0;
    let d = 0x8aed2a6a | 0;
    if (at > 0) {
      a = hashes[at - 4]! | 0;
      b = hashes[at - 3]! | 0;
      c = hashes[at - 2]! | 0;
      d = hashes[at - 1]! | 0;
    }
    let next = 0;
    if (salt !== null) {
      for (let i = 0; i < salt.length; i += 1) {
        const k = Math.imul(salt.charCodeAt(i) + 0x10000, 0xcc9e2d51);
        next = a ^ Math.imul((k << 15) | (k >>> 17), 0x1b873593);
        next = (Math.imul(((next << 13) | (next >>> 19)) + b, 5) + 0x38b34ae5) | 0;
        a = b;
        b = c;
        c = d;
        d = next;
      }
      a ^= salt.length + 1;
    }
    for (let i = from; i < to; i += 1) {
      const k = Math.imul(tokens[i]!, 0x239b961b);
      next = a ^ Math.imul((k << 15) | (k >>> 17), 0xab0e9789);
      next = (Math.imul(((next << 19) | (next >>> 13)) + b, 5) + 0x561ccd1b) | 0;
      a = b;
      b = c;
      c = d;
      d = next;
    }
    a ^= to - from;
    a = (a + b + c + d) | 0;
    b = finalMix((b + a) | 0);
    c = finalMix((c + a) | 0);
    d = finalMix((d + a) | 0);
    a = finalMix(a);
    a = (a + b + c + d) | 0;
    hashes[at] = a;
    hashes[at + 1] = b + a;
    hashes[at + 2] = c + a;
    hashes[at + 3] = d + a;
  },
};

/** Appends the head of a canonical CBOR item: major type and length or value, in the fewest bytes. */
const cborHead = (out: number[], major: number, value: number): void => {
  const type = major << 5;
  if (value < 24) out.push(type | value);
  else if (value < 0x100) out.push(type | 24, value);
  else if (value < 0x1_0000) out.push(type | 25, value >>> 8, value & 0xff);
  else out.push(type | 26, value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
};

const cborText = (out: number[], text: string): void => {
  const bytes = utf8(text);
  cborHead(out, 3, bytes.length);
  out.push(...bytes);
};

/** UTF-8 without TextEncoder, which not every host of the engine has. A lone surrogate becomes U+FFFD. */
const utf8 = (text: string): number[] => {
  const out: number[] = [];
  for (const character of text) {
    const point = character.codePointAt(0)!;
    const code = point >= 0xd800 && point < 0xe000 ? 0xfffd : point;
    if (code < 0x80) out.push(code);
    else if (code < 0x800) out.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x1_0000) out.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else {
      out.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    }
  }
  return out;
};

/** The parent of every first block: SHA-256 over the CBOR of the text `seed`; vLLM's PYTHONHASHSEED=0 is `'0'`. */
const firstParent = (seed: string): Uint8Array => {
  const text: number[] = [];
  cborText(text, seed);
  return sha256(Uint8Array.from(text));
};

/**
 * SHA-256 over canonical CBOR `[parent, [token ids], null | [extra keys]]`: vLLM's portable form, the same on every
 * machine.
 */
export class Sha256BlockHasher implements BlockHasher {
  readonly name = 'sha256_cbor';
  readonly words = 8;
  /** Bytes of the parent of a first block. */
  readonly firstParent: Uint8Array;

  constructor(seed = '0') {
    this.firstParent = firstParent(seed);
  }

  hash(tokens: Uint32Array, from: number, to: number, salt: string | null, hashes: Uint32Array, at: number): void {
    const bytes: number[] = [0x83, 0x58, 0x20];
    if (at === 0) bytes.push(...this.firstParent);
    else {
      for (let i = at - 8; i < at; i += 1) {
        const word = hashes[i]!;
        bytes.push(word >>> 24, (word >>> 16) & 0xff, (word >>> 8) & 0xff, word & 0xff);
      }
    }
    cborHead(bytes, 4, to - from);
    for (let i = from; i < to; i += 1) cborHead(bytes, 0, tokens[i]!);
    if (salt === null) bytes.push(0xf6);
    else {
      cborHead(bytes, 4, 1);
      cborText(bytes, salt);
    }
    const digest = sha256(Uint8Array.from(bytes));
    for (let i = 0; i < 8; i += 1) {
      const j = i * 4;
      hashes[at + i] = (digest[j]! << 24) | (digest[j + 1]! << 16) | (digest[j + 2]! << 8) | digest[j + 3]!;
    }
  }
}

/** A hash as it is shown: big-endian hexadecimal. */
export const blockHashHex = (hashes: Uint32Array, at: number, words: number): string => {
  const bytes = new Uint8Array(words * 4);
  for (let i = 0; i < words; i += 1) {
    const word = hashes[at + i]!;
    bytes[i * 4] = word >>> 24;
    bytes[i * 4 + 1] = word >>> 16;
    bytes[i * 4 + 2] = word >>> 8;
    bytes[i * 4 + 3] = word;
  }
  return bytesToHex(bytes);
};
