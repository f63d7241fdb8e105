/**
 * Hashes of full KV blocks, chained: a block's hash stands for every token up to its end.
 *
 *     H(block i) = H(parent = H(block i − 1), tokens of block i, extra keys)
 *     extra keys: the cache salt, in the first block only
 *
 * A hash is `words` u32 in a caller's array, so that hashing a block allocates nothing. Two hashers: `fastBlockHasher`
 * for the scheduler, `Sha256BlockHasher` where hashes leave the process.
 */

export interface BlockHasher {
  readonly name: string;
  /** u32 words of one hash. */
  readonly words: number;
  /**
   * Hashes `tokens[from … to)` and writes `words` u32 to `hashes` at `at`. The parent's hash stands right before it, at
   * `at − words`; `at = 0` is a first block. `salt` is the extra key, or `null`. Positional, since a hash is to
   * allocate nothing.
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
 * 2^-65. It is not cryptographic: where tenants that may attack each other share one cache, give each a salt or use
 * `Sha256BlockHasher`.
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
