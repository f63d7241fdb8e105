/**
 * The KV blocks of a device: which are free, which are shared, and which full block holds which prefix.
 * After `vllm/v1/core/block_pool.py`.
 *
 *     free list    head ⇄ 5 ⇄ 9 ⇄ 2 ⇄ tail    next to be taken first; doubly linked: a hit leaves its middle in O(1)
 *     hash map     bucket(hash) → 5 ⇄ 7 ⇄ …    in the order of insertion: the first inserted of one hash wins
 *
 * Invariant: a block other than 0 is on the free list if and only if its reference count is 0. Block 0, the null block,
 * is never on it.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';

const NONE = -1;

export class BlockPool {
  readonly numBlocks: number;
  /** u32 words of a block hash. */
  readonly hashWords: number;
  /** Called when a followed block loses its hash, except by `resetCache`. */
  onEvicted: (blockId: number) => void = () => {};

  /** Called when a cached block is taken for other tokens, while it still has its hash; `null`: nobody asks. */
  onReused: ((blockId: number, hashes: Uint32Array, at: number) => void) | null = null;

  readonly #refCounts: Int32Array;
  /** Free list; entry `numBlocks` is head and tail in one. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  #numFree: number;

  readonly #isCached: Uint8Array;
  /** Set only while the block is cached. */
  readonly #isFollowed: Uint8Array;
  readonly #hashes: Uint32Array;
  readonly #bucketMask: number;
  readonly #bucketFirst: Int32Array;
  readonly #bucketLast: Int32Array;
  readonly #bucketNext: Int32Array;
  readonly #bucketPrevious: Int32Array;
  #numCached = 0;

  constructor(numBlocks: number, hashWords: number) {
    this.numBlocks = numBlocks;
    this.hashWords = hashWords;
    this.#refCounts = new Int32Array(numBlocks);
    this.#next = new Int32Array(numBlocks + 1);
    this.#previous = new Int32Array(numBlocks + 1);
    const end = numBlocks;
    this.#next[end] = end;
    this.#previous[end] = end;
    for (let id = 1; id < numBlocks; id += 1) this.#insertBefore(end, id);
    this.#numFree = numBlocks - 1;
    this.#refCounts[0] = 1;

    this.#isCached = new Uint8Array(numBlocks);
    this.#isFollowed = new Uint8Array(numBlocks);
    this.#hashes = new Uint32Array(numBlocks * hashWords);
    let numBuckets = 16;
    while (numBuckets < numBlocks * 2) numBuckets *= 2;
    this.#bucketMask = numBuckets - 1;
    this.#bucketFirst = new Int32Array(numBuckets).fill(NONE);
    this.#bucketLast = new Int32Array(numBuckets).fill(NONE);
    this.#bucketNext = new Int32Array(numBlocks).fill(NONE);
    this.#bucketPrevious = new Int32Array(numBlocks).fill(NONE);
  }

  get numFree(): number {
    return this.#numFree;
  }

  /** Blocks that requests hold. */
  get numUsed(): number {
    return this.numBlocks - 1 - this.#numFree;
  }

  /** Blocks, held or free, that a prefix lookup can find. */
  get numCached(): number {
    return this.#numCached;
  }

  refCount(blockId: number): number {
    return this.#refCounts[blockId]!;
  }

  isCached(blockId: number): boolean {
    return this.#isCached[blockId] === 1;
  }

  /** Takes the block at the front of the free list. The caller has checked that there is one. */
  take(): number {
    const end = this.numBlocks;
    const id = this.#next[end]!;
    if (id === end) throw RoutedExpertsError.of('INVARIANT', 'a block was taken from an empty pool');
    this.#unlink(id);
    this.#refCounts[id] = 1;
    if (this.#isCached[id] === 1) {
      this.onReused?.(id, this.#hashes, id * this.hashWords);
      this.evict(id);
    }
    return id;
  }

  /** A cached block loses its hash: no request can hit it any more. */
  evict(blockId: number): void {
    this.#uncache(blockId);
    if (this.#isFollowed[blockId] === 0) return;
    this.#isFollowed[blockId] = 0;
    this.onEvicted(blockId);
  }

  /** One more request holds a cached block; a free one leaves the free list. */
  touch(blockId: number): void {
    if (this.#refCounts[blockId] === 0) this.#unlink(blockId);
    this.#refCounts[blockId]! += 1;
  }

  /**
   * A request gives up `blockIds`, its block table, from the tail to the head. Blocks that no request holds any more
   * become free. Those without a hash, which cannot be hit, go to the front as one group in the order given; those with
   * a hash go to the end.
   */
  freeTable(blockIds: readonly number[]): void {
    const end = this.numBlocks;
    // The last of the group at the front; `end` is before the first.
    let lastOfFront = end;
    for (let i = blockIds.length - 1; i >= 0; i -= 1) {
      const id = blockIds[i]!;
      const count = this.#refCounts[id]! - 1;
      if (count < 0 || id === 0) throw RoutedExpertsError.of('INVARIANT', `block ${id} was freed twice`);
      this.#refCounts[id] = count;
      if (count > 0) continue;
      if (this.#isCached[id] === 1) this.#insertBefore(end, id);
      else {
        this.#insertBefore(this.#next[lastOfFront]!, id);
        lastOfFront = id;
      }
      this.#numFree += 1;
    }
  }

  /** Gives a full block its hash, `hashWords` u32 of `hashes` at `at`. */
  cache(blockId: number, hashes: Uint32Array, at: number): void {
    const words = this.hashWords;
    const own = blockId * words;
    for (let i = 0; i < words; i += 1) this.#hashes[own + i] = hashes[at + i]!;
    this.#isCached[blockId] = 1;
    this.#numCached += 1;
    const bucket = hashes[at]! & this.#bucketMask;
    const last = this.#bucketLast[bucket]!;
    this.#bucketPrevious[blockId] = last;
    this.#bucketNext[blockId] = NONE;
    if (last === NONE) this.#bucketFirst[bucket] = blockId;
    else this.#bucketNext[last] = blockId;
    this.#bucketLast[bucket] = blockId;
  }

  /** `onEvicted` is to be called for this cached block. */
  follow(blockId: number): void {
    this.#isFollowed[blockId] = 1;
  }

  isFollowed(blockId: number): boolean {
    return this.#isFollowed[blockId] === 1;
  }

  /** The first inserted block that bears the hash, or −1. */
  find(hashes: Uint32Array, at: number): number {
    return this.#firstOf(this.#bucketFirst[hashes[at]! & this.#bucketMask]!, hashes, at);
  }

  /** Of the blocks that bear the hash of this cached block, the one inserted next after it, or −1. */
  findNext(blockId: number): number {
    return this.#firstOf(this.#bucketNext[blockId]!, this.#hashes, blockId * this.hashWords);
  }

  /** Every cached block loses its hash. `false`, and nothing happens, while a request holds a block. */
  resetCache(): boolean {
    if (this.numUsed !== 0) return false;
    this.#isCached.fill(0);
    this.#isFollowed.fill(0);
    this.#bucketFirst.fill(NONE);
    this.#bucketLast.fill(NONE);
    this.#numCached = 0;
    return true;
  }

  /** The free list, next to be taken first. For checks: O(blocks). */
  freeQueue(): number[] {
    const ids: number[] = [];
    for (let id = this.#next[this.numBlocks]!; id !== this.numBlocks; id = this.#next[id]!) ids.push(id);
    return ids;
  }

  #insertBefore(next: number, id: number): void {
    const previous = this.#previous[next]!;
    this.#next[previous] = id;
    this.#previous[id] = previous;
    this.#next[id] = next;
    this.#previous[next] = id;
  }

  #unlink(id: number): void {
    const previous = this.#previous[id]!;
    const next = this.#next[id]!;
    this.#next[previous] = next;
    this.#previous[next] = previous;
    this.#numFree -= 1;
  }

  /** The first block that bears the hash, from block `from` of its bucket on. */
  #firstOf(from: number, hashes: Uint32Array, at: number): number {
    const words = this.hashWords;
    for (let id = from; id !== NONE; id = this.#bucketNext[id]!) {
      const own = id * words;
      let i = 0;
      while (i < words && this.#hashes[own + i] === hashes[at + i]) i += 1;
      if (i === words) return id;
    }
    return NONE;
  }

  #uncache(id: number): void {
    this.#isCached[id] = 0;
    this.#numCached -= 1;
    const bucket = this.#hashes[id * this.hashWords]! & this.#bucketMask;
    const previous = this.#bucketPrevious[id]!;
    const next = this.#bucketNext[id]!;
    if (previous === NONE) this.#bucketFirst[bucket] = next;
    else this.#bucketNext[previous] = next;
    if (next === NONE) this.#bucketLast[bucket] = previous;
    else this.#bucketPrevious[next] = previous;
  }
}
