/** Cached KV blocks whose hash the worker does not have yet: a hit on one would find no rows. */

import type { CaptureRequest } from '../../contract/request.ts';
import { hashKey } from './messages.ts';

/**
 *     cached at the end of a step ──▶ unsent ──▶ sent with the next step of a request that has the hash
 *                                        └─────▶ evicted, or the cache is reset
 *
 * Bounded by the pool: at most one entry a block. Both maps hold the same pairs.
 */
export class UnsentHashes {
  readonly #byBlock: Map<number, string> = new Map();
  readonly #byHash: Map<string, number> = new Map();

  /** The request's blocks `[from, to)` can be hit, and the worker does not have their hashes. */
  add(request: CaptureRequest, from: number, to: number): void {
    for (let ordinal = from; ordinal < to; ordinal++) {
      const blockId = request.blockIds[ordinal];
      if (blockId === undefined) return;
      const key = keyOf(request, ordinal);
      if (this.#byHash.has(key) || this.#byBlock.has(blockId)) continue;
      this.#byBlock.set(blockId, key);
      this.#byHash.set(key, blockId);
    }
  }

  /** The request's hashes from `firstOrdinal` on go to the worker. */
  onSent(request: CaptureRequest, firstOrdinal: number): void {
    for (let i = firstOrdinal; i < request.numHashedBlocks && this.#byHash.size > 0; i++) {
      const key = keyOf(request, i);
      const blockId = this.#byHash.get(key);
      if (blockId === undefined) continue;
      this.#byHash.delete(key);
      this.#byBlock.delete(blockId);
    }
  }

  /** The worker does not have the hash of the request's block `ordinal`. */
  has(request: CaptureRequest, ordinal: number): boolean {
    return this.#byHash.size > 0 && this.#byHash.has(keyOf(request, ordinal));
  }

  onEvicted(blockId: number): void {
    const key = this.#byBlock.get(blockId);
    if (key === undefined) return;
    this.#byBlock.delete(blockId);
    this.#byHash.delete(key);
  }

  clear(): void {
    this.#byBlock.clear();
    this.#byHash.clear();
  }
}

const keyOf = (request: CaptureRequest, ordinal: number): string =>
  hashKey(request.blockHashes, ordinal * request.blockHashWords, request.blockHashWords);
