/** Which cached blocks a request may begin with, and how many tokens that saved. */

import type { CaptureEngineHalf } from '../../contract/capture.ts';
import type { EngineConfig } from '../../contract/config.ts';
import { NO_HITS, type KVCacheManager } from './kv-cache-manager.ts';
import type { Request } from '../request.ts';

const MISS = -1;

/**
 *     block of the prompt       0      1      2      3
 *     cached, first inserted    5      9      2      8         block 9 was computed for a request that wanted no rows
 *     cached later              –      4 r    –      –         r: with rows
 *     ordinary request          5      9      2      8         as vLLM chooses
 *     request that wants rows   5 r    4 r    miss   refused   block 2 has no rows; block 3 stands behind a miss
 */
export class PrefixLookup {
  /** Admissions and resumptions since the start. */
  numQueries = 0;
  /**
   * Since the start: tokens of admitted and resumed requests, those of them that were found cached and used, and those
   * that were found cached and refused, since no block with their rows is cached.
   */
  numQueryTokens = 0;
  numHitTokens = 0;
  numRefusedTokens = 0;
  readonly #kv: KVCacheManager;
  readonly #capture: CaptureEngineHalf | null;
  readonly #blockSize: number;
  readonly #isEnabled: boolean;
  readonly #hits: number[] = [];
  /** Blocks that the last lookup found, used or refused. */
  #numFound = 0;

  constructor(config: EngineConfig, kv: KVCacheManager, capture: CaptureEngineHalf | null) {
    this.#kv = kv;
    this.#capture = capture;
    this.#blockSize = config.blockSize;
    this.#isEnabled = config.enablePrefixCaching;
  }

  /**
   * The cached blocks with which the request may begin. They hold at most `numTokens − 1` tokens: of a full hit the
   * last block is computed again, since only computing a token yields the one behind it. The array is reused by the
   * next call.
   */
  find(request: Request): readonly number[] {
    if (!this.#isEnabled) return NO_HITS;
    const hits = this.#hits;
    hits.length = 0;
    const kv = this.#kv;
    const { wanted } = request;
    const mostBlocks = Math.floor((request.numTokens - 1) / this.#blockSize);
    let isBehindMiss = false;
    let ordinal = 0;
    for (; ordinal < mostBlocks; ordinal += 1) {
      const first = kv.findBlock(request, ordinal);
      if (first < 0) break;
      if (isBehindMiss) continue;
      const id = wanted ? this.#withRows(request, first, ordinal) : first;
      if (id === MISS) isBehindMiss = true;
      else hits.push(id);
    }
    this.#numFound = ordinal;
    return hits;
  }

  /** The request has taken the first `numHits` blocks that the last lookup found for it. */
  take(request: Request, numHits: number): void {
    this.numQueries += 1;
    this.numQueryTokens += request.numTokens;
    this.numHitTokens += numHits * this.#blockSize;
    this.numRefusedTokens += (this.#numFound - numHits) * this.#blockSize;
    if (numHits > 0 && request.wanted) this.#capture!.onPrefixHit?.(request, numHits);
  }

  /** Of the cached blocks with the hash of `first`, the one for a request that wants rows. */
  #withRows(request: Request, first: number, ordinal: number): number {
    const capture = this.#capture!;
    if (capture.hasRows === undefined) return first;
    for (let id = first; id >= 0; id = this.#kv.pool.findNext(id)) {
      if (capture.hasRows(request, id, ordinal)) return id;
    }
    return capture.needsRows === true ? MISS : first;
  }
}
