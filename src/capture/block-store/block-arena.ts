/** The worker's blocks of rows: who holds them, which full one holds which prefix, and which goes first when all are taken. */

import { RoutedExpertsError } from '../../contract/errors.ts';

/**
 *                    take                publish(hash)
 *     empty ───────────────▶ private ──────────────────▶ published, held by n ≥ 1 requests
 *       ▲                       │                             │ n = 0                  ▲ hold
 *       ├───────────────────────┘ release                     ▼                        │
 *       └──────────── evicted, oldest first ◀──────── published, idle ─────────────────┘
 *
 * A private block belongs to one request, which writes to it; a published one is immutable. A second block of a published hash stays
 * private: its request wants its own rows. The arena has twice the blocks of the KV pool: KV blocks that can be hit never outnumber
 * the pool, and of the rest the one released first goes first. A hash whose rows went all the same is not found, and its rows are
 * reported missing (L4).
 *
 * Invariant: a block is in exactly one of the four states; `#byHash` names the published ones, `#idle` those that nobody holds.
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

  /** Published blocks that nobody holds. */
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

  /** A private block becomes immutable, unless the hash has a block already. */
  publish(block: number, hash: string): void {
    if (this.#byHash.has(hash)) return;
    this.#hashes[block] = hash;
    this.#byHash.set(hash, block);
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
   * A request lets go of a block, full and of hash `hash`, or not full (`null`). A published block that nobody holds any more waits for
   * a hit; so does a private one, in the place of the published one if that has gone, else it makes that one the youngest.
   */
  release(block: number, hash: string | null): void {
    const count = this.#refCounts[block]! - 1;
    if (count < 0) throw RoutedExpertsError.of('INVARIANT', `row block ${block} was released twice`);
    this.#refCounts[block] = count;
    if (count > 0) return;
    if (hash !== null) this.publish(block, hash);
    if (this.#hashes[block] !== null) {
      this.#idle.add(block);
      return;
    }
    this.#empty.push(block);
    const published = hash === null ? undefined : this.#byHash.get(hash);
    if (published !== undefined && this.#idle.delete(published)) this.#idle.add(published);
  }

  /** A new generation: no hash is known any more. Held blocks stay with those who hold them. */
  reset(): void {
    for (const block of this.#byHash.values()) this.#hashes[block] = null;
    this.#byHash.clear();
    for (const block of this.#idle) this.#empty.push(block);
    this.#idle.clear();
  }
}
