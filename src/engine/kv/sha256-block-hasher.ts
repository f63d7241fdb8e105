/**
 * The strong block hash: SHA-256 over canonical CBOR `[parent, [token ids], null | [extra keys]]`. It is vLLM's
 * portable form (`sha256_cbor` of `vllm/v1/core/kv_cache_utils.py`) and the same on every machine, for hashes that
 * leave the process.
 */

import { sha256 } from '@noble/hashes/sha2.js';
import type { BlockHasher } from './block-hash.ts';

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
