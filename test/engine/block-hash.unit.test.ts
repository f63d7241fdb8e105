/**
 * Block hashes: the portable form is vLLM's, byte for byte; the fast form is chained over tokens, order, length and
 * salt, and does not collide.
 */

import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bytesToHex } from '@noble/hashes/utils.js';
import { fastBlockHasher, type BlockHasher } from '../../src/engine/kv/block-hash.ts';
import { Sha256BlockHasher } from '../../src/engine/kv/sha256-block-hasher.ts';

const chain = (hasher: BlockHasher, tokens: readonly number[], blockSize: number, salt: string | null): string[] => {
  const numBlocks = tokens.length / blockSize;
  const hashes = new Uint32Array(numBlocks * hasher.words);
  for (let i = 0; i < numBlocks; i += 1) {
    const from = i * blockSize;
    hasher.hash(Uint32Array.from(tokens), from, from + blockSize, i === 0 ? salt : null, hashes, i * hasher.words);
  }
  const wordsOf = (i: number): Uint32Array => hashes.subarray(i * hasher.words, (i + 1) * hasher.words);
  return Array.from({ length: numBlocks }, (_, i) =>
    Array.from(wordsOf(i), (word) => word.toString(16).padStart(8, '0')).join(''),
  );
};

describe('sha256_cbor gives the hashes of vLLM with PYTHONHASHSEED=0', () => {
  const hasher = new Sha256BlockHasher();
  test('parent of a first block', () => {
    expect(bytesToHex(hasher.firstParent)).toBe('4e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e');
  });
  test('block [0,1,2,3] and its child [4,5,6,7]', () => {
    expect(chain(hasher, [0, 1, 2, 3, 4, 5, 6, 7], 4, null)).toEqual([
      '8d4c7c828f1611f485f1ebfc2b19f0fe1c90d0a71d00cd90948a1fa5e8c9e91f',
      'ed6fa5d37a067707ede9aff44aa2819ab639263ca4ca66e8d36d02ffac952d33',
    ]);
  });
  test('block [0,1,2,3] with the extra key "salt"', () => {
    const [hash] = chain(hasher, [0, 1, 2, 3], 4, 'salt');
    expect(hash).toBe('3e802d6eac29ab04cbd4d2e574e18761ff77de15acc2225250414e00808d7180');
  });
  test('token ids of every CBOR width, and a salt beyond ASCII, are the bytes that RFC 8949 says', () => {
    const parent = '4e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e';
    const tokens = ['87', '17', '1818', '18ff', '190100', '19ffff', '1a00010000', '1afffffffe'].join('');
    const salt = ['81', '6a', '73c3a46c7420f09fa782'].join('');
    const expected = createHash('sha256')
      .update(Buffer.from(`835820${parent}${tokens}${salt}`, 'hex'))
      .digest('hex');
    expect(chain(hasher, [23, 24, 255, 256, 65_535, 65_536, 0xffff_fffe], 7, 'sält 🧂')).toEqual([expected]);
  });
});

describe('fast128 is a function of the whole prefix', () => {
  test('one changed token changes its block and every block behind it, none before it', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat({ max: 200_000 }), { minLength: 12, maxLength: 12 }),
        fc.nat({ max: 11 }),
        fc.integer({ min: 1, max: 0xffff_ffff }),
        (tokens, at, flip) => {
          const other = tokens.map((token, i) => (i === at ? (token ^ flip) >>> 0 : token));
          const a = chain(fastBlockHasher, tokens, 4, null);
          const b = chain(fastBlockHasher, other, 4, null);
          for (let i = 0; i < 3; i += 1) expect(a[i] === b[i]).toBe(i < Math.floor(at / 4));
        },
      ),
    );
  });
  test('salts, lengths and orders are told apart', () => {
    const variants = [
      chain(fastBlockHasher, [1, 2, 3, 4], 4, null)[0],
      chain(fastBlockHasher, [2, 1, 3, 4], 4, null)[0],
      chain(fastBlockHasher, [1, 2, 3, 4], 2, null)[1],
      chain(fastBlockHasher, [1, 2, 3, 4], 4, '')[0],
      chain(fastBlockHasher, [1, 2, 3, 4], 4, 'a')[0],
      chain(fastBlockHasher, [1, 2, 3, 4], 4, 'aa')[0],
      chain(fastBlockHasher, [1, 2, 3], 3, null)[0],
      chain(fastBlockHasher, [0, 0, 0], 3, null)[0],
      chain(fastBlockHasher, [0, 0, 0, 0], 4, null)[0],
    ];
    expect(new Set(variants).size).toBe(variants.length);
  });
  test('200,000 blocks of small, regular tokens: no two agree in any 64 of their 128 bits', () => {
    const halves = [new Set<string>(), new Set<string>()];
    const tokens = new Uint32Array(16);
    const hash = new Uint32Array(4);
    const numBlocks = 200_000;
    for (let i = 0; i < numBlocks; i += 1) {
      tokens[i % 16] = i;
      fastBlockHasher.hash(tokens, 0, 16, null, hash, 0);
      halves[0]!.add(`${hash[0]},${hash[1]}`);
      halves[1]!.add(`${hash[2]},${hash[3]}`);
    }
    expect(halves.map(({ size }) => size)).toEqual([numBlocks, numBlocks]);
  });
});
