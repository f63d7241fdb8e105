/**
 * Gives requests their KV blocks, gives full blocks their hashes, finds blocks by hash, and takes blocks back.
 * After `vllm/v1/core/kv_cache_manager.py`, for one full-attention KV group.
 */

import type { CaptureEngineHalf } from '../../contract/capture.ts';
import type { EngineConfig } from '../../contract/config.ts';
import type { BlockHasher } from './block-hash.ts';
import { BlockPool } from './block-pool.ts';
import type { Request } from '../request.ts';

/** No prefix was found. */
export const NO_HITS: readonly number[] = [];

/** What a request begins with, and what its admission leaves to others. */
export type AdmissionTerms = Readonly<{
  /** Cached blocks that a request without blocks begins with. */
  hits: readonly number[];
  /** Tokens for which there must be room although they are not allocated; 0 = none. */
  reserveTokens: number;
  /** Blocks that must stay free. */
  reserveBlocks: number;
}>;

/** A running request takes what it needs. */
const IS_RUNNING: AdmissionTerms = { hits: NO_HITS, reserveTokens: 0, reserveBlocks: 0 };

export class KVCacheManager {
  readonly pool: BlockPool;
  readonly #hasher: BlockHasher;
  readonly #blockSize: number;
  readonly #maxModelLen: number;
  /** Slots behind the tokens of a step: room for the drafts of the step after it. */
  readonly #numLookaheadTokens: number;
  readonly #enableCaching: boolean;
  /** Blocks that admission leaves free. */
  readonly watermarkBlocks: number;
  /** The capture design, if it follows blocks. */
  readonly #follower: CaptureEngineHalf | null;

  constructor(config: EngineConfig, hasher: BlockHasher, capture: CaptureEngineHalf | null) {
    this.pool = new BlockPool(config.numBlocks, hasher.words);
    this.#hasher = hasher;
    this.#blockSize = config.blockSize;
    this.#maxModelLen = config.maxModelLen;
    this.#numLookaheadTokens = config.numSpeculativeTokens;
    this.#enableCaching = config.enablePrefixCaching;
    this.watermarkBlocks = Math.floor(config.watermark * config.numBlocks);
    this.#follower = capture?.followsBlocks === true ? capture : null;
    if (this.#follower !== null) this.pool.onEvicted = (blockId) => this.#follower!.onBlockEvicted?.(blockId);
  }

  /** The first inserted of the cached blocks that hold the tokens of block `ordinal` of the request, or −1. */
  findBlock(request: Request, ordinal: number): number {
    if (ordinal >= request.numHashedBlocks) this.#hashBlocks(request, ordinal + 1);
    return this.pool.find(request.blockHashes, ordinal * this.#hasher.words);
  }

  /** Hashes every full block that the request may hit. `false`: blocks are not cached at all. */
  hashPrefix(request: Request): boolean {
    const numBlocks = Math.floor((request.numTokens - 1) / this.#blockSize);
    if (this.#enableCaching && numBlocks > request.numHashedBlocks) this.#hashBlocks(request, numBlocks);
    return this.#enableCaching;
  }

  /**
   * Makes room for `numNewTokens` more tokens and for drafts behind them: appends blocks to the request's table. Blocks
   * that become full get their hashes before their KV is computed, so that a later request of the same step can hit
   * them.
   *
   * @returns `false`, and nothing happens, if there are too few free blocks
   */
  allocateSlots(request: Request, numNewTokens: number, admission: AdmissionTerms = IS_RUNNING): boolean {
    const blockSize = this.#blockSize;
    const { hits, reserveTokens } = admission;
    const numTokens = request.numComputedTokens + hits.length * blockSize + numNewTokens;
    const numSlots = Math.min(numTokens + this.#numLookaheadTokens, this.#maxModelLen);
    if (hits.length > 0 || reserveTokens > 0 || numSlots > request.blockIds.length * blockSize) {
      if (!this.takeBlocks(request, numSlots, admission)) return false;
    }
    this.cacheBlocks(request, numTokens < request.numTokens ? numTokens : request.numTokens);
    return true;
  }

  /** The KV of the first `numTokens` tokens was loaded: the blocks that they fill can be hit. */
  cacheLoadedBlocks(request: Request, numTokens: number): void {
    const numFull = Math.floor(numTokens / this.#blockSize);
    if (!this.#enableCaching || numFull <= request.numCachedBlocks) return;
    this.#cacheFull(request, numFull);
  }

  /** Gives hashes to the blocks that the first `numTokens` tokens fill. All of these tokens are known. */
  cacheBlocks(request: Request, numTokens: number): void {
    const cached = request.numCachedBlocks;
    if (!this.#enableCaching || numTokens < (cached + 1) * this.#blockSize) return;
    this.#cacheFull(request, Math.floor(numTokens / this.#blockSize));
    if (request.wanted && this.#follower !== null) this.#follower.onBlocksCached?.(request, cached);
  }

  /** Takes all blocks of a request back, tail first. Cached blocks can be hit until another request takes them. */
  free(request: Request): void {
    if (request.blockIds.length === 0) return;
    this.pool.freeTable(request.blockIds);
    request.blockIds = [];
    request.numCachedBlocks = 0;
  }

  /**
   * Returns the blocks that got a hash for tokens that will not be computed: those of a request that is taken out of
   * the step that would have computed them.
   */
  uncomputedBlocks(request: Request): number[] {
    return request.blockIds.slice(Math.floor(request.numComputedTokens / this.#blockSize), request.numCachedBlocks);
  }

  /**
   * Appends the hits and new blocks until the table has `numSlots` slots. `false`, and nothing happens, if there are
   * too few free blocks.
   */
  takeBlocks(request: Request, numSlots: number, { hits, reserveTokens, reserveBlocks }: AdmissionTerms): boolean {
    const blockSize = this.#blockSize;
    const pool = this.pool;
    const blockIds = request.blockIds;
    // A hit that no request holds is on the free list, and leaves it too.
    let numFreeHits = 0;
    for (let i = 0; i < hits.length; i += 1) if (pool.refCount(hits[i]!) === 0) numFreeHits += 1;
    const numHeld = blockIds.length + hits.length;
    const available = pool.numFree - numFreeHits - reserveBlocks;
    const numNeeded = Math.ceil(numSlots / blockSize) - numHeld;
    const numReserved = Math.ceil(Math.min(reserveTokens, this.#maxModelLen) / blockSize) - numHeld;
    if (numNeeded > available || numReserved > available) return false;
    for (let i = 0; i < hits.length; i += 1) {
      pool.touch(hits[i]!);
      blockIds.push(hits[i]!);
    }
    if (hits.length > 0) request.numCachedBlocks = hits.length;
    for (let i = 0; i < numNeeded; i += 1) blockIds.push(pool.take());
    return true;
  }

  /** Gives hashes to the request's blocks before ordinal `numFull`. */
  #cacheFull(request: Request, numFull: number): void {
    const { pool } = this;
    const { words } = this.#hasher;
    if (numFull > request.numHashedBlocks) this.#hashBlocks(request, numFull);
    const isFollowed = request.wanted && this.#follower !== null;
    for (let i = request.numCachedBlocks; i < numFull; i += 1) {
      const id = request.blockIds[i]!;
      pool.cache(id, request.blockHashes, i * words);
      if (isFollowed) pool.follow(id);
    }
    request.numCachedBlocks = numFull;
  }

  #hashBlocks(request: Request, numBlocks: number): void {
    const words = this.#hasher.words;
    request.blockHashWords = words;
    if (request.blockHashes.length < numBlocks * words) {
      const grown = new Uint32Array(Math.max(numBlocks, Math.ceil(request.tokenIds.length / this.#blockSize)) * words);
      grown.set(request.blockHashes);
      request.blockHashes = grown;
    }
    for (let i = request.numHashedBlocks; i < numBlocks; i += 1) {
      const from = i * this.#blockSize;
      this.#hasher.hash(
        request.tokenIds,
        from,
        from + this.#blockSize,
        i === 0 ? request.cacheSalt : null,
        request.blockHashes,
        i * words,
      );
    }
    request.numHashedBlocks = numBlocks;
  }
}
