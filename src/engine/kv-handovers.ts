/**
 * The requests whose KV is being loaded, was loaded, or is kept for another engine, and the blocks that they hold
 * meanwhile.
 */

import type { CaptureEngineHalf } from '../contract/capture.ts';
import type { FinishReason } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { KvConnector, KvLoadOutcome } from '../contract/kv-connector.ts';
import type { KVCacheManager } from './kv/kv-cache-manager.ts';
import { RequestStatus, type Request } from './request.ts';
import type { WaitingRequests } from './waiting-requests.ts';

type KvHandoverParts = Readonly<{
  connector: KvConnector;
  kv: KVCacheManager;
  capture: CaptureEngineHalf | null;
  waiting: WaitingRequests;
}>;

/**
 *     waiting ──▶ loading ──▶ loaded ──▶ running ──▶ kept
 *                    │ aborted: stays here, finished, until its load has ended
 *
 * Invariant: a request is in at most one of the three, and holds its blocks as long as it is in one. A loaded request
 * also waits to be admitted.
 */
export class KvHandovers {
  /** By request index, which is also the load's id. */
  readonly loading: Map<number, Request> = new Map();
  readonly loaded: Set<Request> = new Set();
  readonly kept: Map<number, Request> = new Map();
  /** Tokens loaded since the start. */
  numExternalTokens = 0;
  readonly #connector: KvConnector;
  readonly #kv: KVCacheManager;
  readonly #capture: CaptureEngineHalf | null;
  readonly #waiting: WaitingRequests;
  /** The connector is asked again and again, and hears of evictions. */
  readonly #isTier: boolean;

  constructor({ connector, kv, capture, waiting }: KvHandoverParts) {
    this.#connector = connector;
    this.#kv = kv;
    this.#capture = capture;
    this.#waiting = waiting;
    this.#isTier = connector.isTier === true;
    if (this.#isTier) kv.pool.onReused = (blockId, hashes, at) => this.#offload(blockId, hashes, at);
  }

  /** Loads whose request is alive. */
  get numWaiting(): number {
    let count = 0;
    for (const request of this.loading.values()) if (request.status !== RequestStatus.finished) count += 1;
    return count;
  }

  get numKeptBlocks(): number {
    let count = 0;
    for (const request of this.kept.values()) count += request.blockIds.length;
    return count;
  }

  /** Blocks are written or read from outside the engine: they cannot be taken back. */
  get isUnderWay(): boolean {
    return this.loading.size + this.kept.size > 0;
  }

  /** Whether there is KV elsewhere behind the `numComputed` tokens that are cached here, and the request may use it. */
  canLoad(request: Request, numComputed: number): boolean {
    if (this.#isTier) return this.#canLoadFromTier(request, numComputed);
    if (request.externalTokens < 0) request.externalTokens = this.#numExternal(request, numComputed);
    // The last token is computed here in any case.
    return Math.min(request.externalTokens, request.numTokens - 1) > numComputed;
  }

  /** Blocks of a tier come and go while a request waits. One that had its load computes what it lacks. */
  #canLoadFromTier(request: Request, numComputed: number): boolean {
    if (request.externalTokens === 0 || !this.#kv.hashPrefix(request)) return false;
    const external = this.#numExternal(request, numComputed);
    request.externalTokens = external > numComputed ? external : -1;
    return external > numComputed;
  }

  #numExternal(request: Request, numComputed: number): number {
    const needsRows = this.#isTier && request.wanted && !this.#accepts(request, false);
    const external = this.#connector.externalKv(request, { numComputed, needsRows });
    if (external === null || (request.wanted && !this.#accepts(request, external.hasRows))) return 0;
    return Math.min(external.numTokens, request.numTokens);
  }

  #accepts(request: Request, hasRows: boolean): boolean {
    const capture = this.#capture!;
    if (this.#isTier && capture.takesTierKv === true) return true;
    return capture.acceptsExternalKv?.(request, hasRows) === true;
  }

  /** A cached block is about to hold other tokens. */
  #offload(blockId: number, hashes: Uint32Array, at: number): void {
    const { pool } = this.#kv;
    const rows = pool.isFollowed(blockId) ? (this.#capture!.evictedRows?.(blockId) ?? null) : null;
    this.#connector.onEvicted!({ blockId, hashes, at, hashWords: pool.hashWords, rows });
  }

  /** The planning of a step has ended. */
  onPlanned(): void {
    this.#connector.onPlanned?.();
  }

  onCacheReset(): void {
    this.#connector.onCacheReset?.();
  }

  /** The request has lost its blocks: a tier may have them when it comes back. */
  onPreempted(request: Request): void {
    if (this.#isTier) request.externalTokens = -1;
  }

  /** The request has left the queue and has its blocks; the load fills those of the positions from `from` on. */
  beginLoad(request: Request, from: number, blockSize: number): void {
    const to = request.externalTokens;
    request.status = RequestStatus.waitingForRemoteKvs;
    request.externalTokens = 0;
    request.loadFrom = from;
    request.loadTo = to;
    this.loading.set(request.index, request);
    this.#connector.startLoad({
      loadId: request.index,
      requestId: request.requestId,
      from,
      to,
      blockIds: request.blockIds.slice(from / blockSize, Math.ceil(to / blockSize)),
    });
  }

  /**
   * A load has ended: its request waits at the front of the queue. Returns the request if it has to end instead, else
   * `null`. Throws INVARIANT for a load that is not in flight.
   *
   * On a full hit the last token is computed again: only computing a token yields the next one.
   */
  endLoad(loadId: number, outcome: KvLoadOutcome): Request | null {
    const request = this.loading.get(loadId);
    if (request === undefined) throw RoutedExpertsError.of('INVARIANT', `load ${loadId} ended, but is not in flight`);
    this.loading.delete(loadId);
    if (request.status === RequestStatus.finished) {
      this.#kv.free(request);
      return null;
    }
    this.#waitAgain(request);
    if (outcome.kind === 'fail') return request;
    const { loadFrom } = request;
    request.numComputedTokens = loadFrom;
    if (outcome.kind === 'loaded') {
      const to = Math.min(request.loadTo, request.numTokens - 1);
      request.numComputedTokens = to;
      this.numExternalTokens += request.loadTo - loadFrom;
      this.#kv.cacheLoadedBlocks(request, to);
      if (request.wanted) this.#capture!.onExternalKv?.(request, loadFrom, to, outcome.rows);
    }
    this.loaded.add(request);
    this.#waiting.prepend(request);
    return null;
  }

  /**
   * Nothing else runs, and loaded requests hold the blocks that `request` needs. The request that was loaded last gives
   * its blocks back and computes its tokens instead; otherwise two requests could wait for each other forever. `false`:
   * no other request is loaded.
   */
  dropOneFor(request: Request): boolean {
    let victim: Request | null = null;
    for (const loaded of this.loaded) if (loaded !== request) victim = loaded;
    if (victim === null) return false;
    this.loaded.delete(victim);
    this.#loseBlocks(victim);
    return true;
  }

  /** All loaded requests that are not admitted yet give their blocks back and compute their tokens instead. */
  dropLoaded(): void {
    for (const request of this.loaded) this.#loseBlocks(request);
    this.loaded.clear();
  }

  /**
   * A request ends. `true`: its blocks must not be freed yet, since a load still writes to them or another engine is
   * going to read them.
   */
  keepsBlocks(request: Request, finishReason: FinishReason): boolean {
    this.loaded.delete(request);
    if (request.status === RequestStatus.waitingForRemoteKvs) return true;
    const isComplete = finishReason === 'stop' || finishReason === 'length';
    if (!isComplete || request.blockIds.length === 0) return false;
    if (!this.#connector.keepsBlocks(request, finishReason)) return false;
    this.kept.set(request.index, request);
    return true;
  }

  /** The kept blocks of an ended request are not needed any more. Unknown indices are ignored. */
  release(requestIndex: number): void {
    const request = this.kept.get(requestIndex);
    if (request === undefined) return;
    this.kept.delete(requestIndex);
    this.#kv.free(request);
  }

  /**
   * The workers died: loaded KV is gone, KV that is being loaded has nowhere to go, and kept blocks cannot be read any
   * more.
   */
  onWorkersLost(): void {
    for (const request of this.kept.values()) this.#kv.free(request);
    this.kept.clear();
    for (const request of this.loading.values()) {
      if (request.status === RequestStatus.finished) {
        this.#kv.free(request);
        continue;
      }
      this.#loseBlocks(request);
      this.#waitAgain(request);
      this.#waiting.prepend(request);
    }
    this.loading.clear();
    this.dropLoaded();
    this.#connector.onWorkersLost();
  }

  /** As before its load: the workers know a request that was preempted. */
  #waitAgain(request: Request): void {
    request.status = request.numPreemptions > 0 ? RequestStatus.preempted : RequestStatus.waiting;
  }

  #loseBlocks(request: Request): void {
    if (request.wanted) this.#capture!.onPreempt?.(request);
    this.#kv.free(request);
    request.numComputedTokens = 0;
  }
}
