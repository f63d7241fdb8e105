/**
 * Seeded random numbers in named streams. Integer and exactly rounded operations only, so that a seed gives the same
 * numbers on every machine (L10).
 *
 * The generator is sfc32 ("small fast counting") by Chris Doty-Humphrey: `raw32` and the three-word `seed` of PractRand
 * 0.94, https://pracrand.sourceforge.net. Of its 128 bits of state the stream's name gives one word (FNV-1a,
 * https://datatracker.ietf.org/doc/html/draft-eastlake-fnv) and the seed two: two seeds never share a state.
 */

import { seedNumber } from './checks.ts';

const TWO_POW_32 = 2 ** 32;
/**
 * What PractRand discards after seeding with three words, so that every bit of the seed has reached every bit of the
 * state.
 */
const SEED_ROUNDS = 15;

export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** PractRand's `seed(a, b, c)`. Callers outside of tests want `random(seed, stream)`. */
  constructor(a: number, b: number, c: number) {
    this.#a = a | 0;
    this.#b = b | 0;
    this.#c = c | 0;
    for (let round = 0; round < SEED_ROUNDS; round++) this.nextUint32();
  }

  /** Uniform in `[0, 2^32)`. */
  nextUint32(): number {
    const b = this.#b;
    const c = this.#c;
    const output = (this.#a + b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = b ^ (b >>> 9);
    this.#b = (c + (c << 3)) | 0;
    this.#c = (((c << 21) | (c >>> 11)) + output) | 0;
    return output >>> 0;
  }

  /** Uniform in `[0, 1)`, in steps of 2^-32. */
  nextFloat(): number {
    return this.nextUint32() / TWO_POW_32;
  }

  /** A whole number in `[0, bound)`, 1 ≤ bound ≤ 2^32. Uniform up to a bias of at most bound / 2^32. */
  below(bound: number): number {
    return Math.floor(this.nextFloat() * bound);
  }

  /** The numbers `[0, count)` in random order (Fisher–Yates). */
  permutation(count: number): Uint32Array {
    const order = Uint32Array.from({ length: count }, (_, index) => index);
    for (let last = count - 1; last > 0; last--) {
      const other = this.below(last + 1);
      const moved = order[last]!;
      order[last] = order[other]!;
      order[other] = moved;
    }
    return order;
  }
}

/** FNV-1a, 32 bits, over the UTF-16 code units of a name. */
function hashName(name: string): number {
  let hash = 0x811c_9dc5;
  for (let index = 0; index < name.length; index++) {
    hash = Math.imul(hash ^ name.charCodeAt(index), 0x0100_0193);
  }
  return hash;
}

/**
 * The stream `stream` of a seed, from its start. Streams with different names are independent: drawing more from one
 * changes no other.
 *
 * @param seed a whole number ≥ 0; BAD_VALUE otherwise
 * @param stream e.g. `chat/lengths`
 */
export function random(seed: number, stream: string): Random {
  seedNumber(seed);
  return new Random(hashName(stream), seed >>> 0, Math.floor(seed / TWO_POW_32));
}
