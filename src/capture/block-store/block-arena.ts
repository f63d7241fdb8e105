/**
 * The worker's blocks of rows: how many requests hold each, which full one holds which prefix, and which goes first
 * when all are taken.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';

/**
 *               take               publish(hash)
 *     empty ────────────▶ private ─────────────────▶ published, held by n ≥ 1 requests
 *       ▲                    │                            │ n = 0          ▲ hold
 *       ├────────────────────┘ release                    ▼                │
 *       └─────────── evicted, oldest first ◀──────── published, idle ──────┘
 *
 * A private block belongs to one request, which writes to it; a published one is immutable. There is one published
 * block for a hash: a request that computed the same prefix again holds that one, so that it is as young as the last of
 * its KV blocks. The arena has twice the blocks of the KV pool: KV blocks that can be hit never outnumber the pool, and
 * of the rest the block that was released first goes first. A hash whose rows went all the same is not found, and its
 * rows are reported missing (L4).
 *
 * Invariant: a block is in exactly one of the four states; `#byHash` names the published ones, `#idle` those that no
 * request holds.
 */
export class BlockArena {
  readonly numBlocks: number;
  readonly #empty: number[];
  readonly #refCounts: Int32Array;
  readonly #hashes: (string | null)[];
  readonly #byHash: Map<string, number> = new Map();
  /** In the order of release: a Set is read in the order of insertion. */
  readonly #idle: Set<number> = new Set();

  constructor(numBlocks: number) {
    this.numBlocks = numBlocks;
    this.#empty = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
    this.#refCounts = new Int32Array(numBlocks);
    this.#hashes = Array.from({ length: numBlocks }, () => null);
  }

  /** Blocks that requests hold. */
  get numHeld(): number {
    return this.numBlocks - this.#empty.length - this.#idle.size;
  }

  /** Published blocks that no request holds. */
  get numIdle(): number {
    return this.#idle.size;
  }

  /** A private block, with old rows in it. */
  take(): number {
    let block = this.#empty.pop();
    if (block === undefined) {
      const oldest = this.#idle.values().next();
      if (oldest.done) throw RoutedExpertsError.of('INVARIANT', `all ${this.numBlocks} row blocks are held`);
      block = oldest.value;
      this.#byHash.delete(this.#hashes[block]!);
      this.#hashes[block] = null;
      this.#idle.delete(block);
    }
    this.#refCounts[block] = 1;
    return block;
  }

  /**
   * A private block becomes immutable. Returns the block that its request holds from here on: the one that the hash
   * had, or this one.
   */
  publish(block: number, hash: string): number {
    const existing = this.hold(hash);
    if (existing !== null) {
      this.release(block);
      return existing;
    }
    this.#hashes[block] = hash;
    this.#byHash.set(hash, block);
    return block;
  }

  /** One more request holds the block of that hash; `null` if there is none. */
  hold(hash: string): number | null {
    const block = this.#byHash.get(hash);
    if (block === undefined) return null;
    this.#idle.delete(block);
    this.#refCounts[block]! += 1;
    return block;
  }

  /**
   * A request lets go of a block. If it was the last, a published block waits for a hit, and a private one is empty.
   */
  release(block: number): void {
    const count = this.#refCounts[block]! - 1;
    if (count < 0) throw RoutedExpertsError.of('INVARIANT', `row block ${block} was released twice`);
    this.#refCounts[block] = count;
    if (count > 0) return;
    if (this.#hashes[block] === null) this.#empty.push(block);
    else this.#idle.add(block);
  }

  /** A new generation: no hash is known any more. Held blocks stay with their requests. */
  reset(): void {
    for (const block of this.#byHash.values()) this.#hashes[block] = null;
    this.#byHash.clear();
    for (const block of this.#idle) this.#empty.push(block);
    this.#idle.clear();
  }
}
