/**
 * The requests alive: where each stands, what it holds, and every way from one place to another.
 *
 *     add ─▶ waiting ──admit──▶ running ──end──▶ finished
 *              ▲ │ ▲              │
 *              │ │ └───preempt────┘
 *              └ waits for remote KV: see kv-handovers.ts
 *
 * Invariant: whoever waits holds no blocks, unless its KV was loaded; an ended request holds none, unless they are
 * handed over.
 */

import type { CaptureEngineHalf } from '../contract/capture.ts';
import type { EngineConfig } from '../contract/config.ts';
import type { EngineCoreOutput, FinishReason } from '../contract/engine-core-output.ts';
import type { KvConnector } from '../contract/kv-connector.ts';
import type { BlockHasher } from './kv/block-hash.ts';
import { KVCacheManager } from './kv/kv-cache-manager.ts';
import { KvHandovers } from './kv-handovers.ts';
import { comesBefore } from './request-queue.ts';
import { RequestStatus, type Request } from './request.ts';
import { SpeculationCounts } from './speculation-counts.ts';
import { WaitingRequests } from './waiting-requests.ts';

export class LiveRequests {
  readonly kv: KVCacheManager;
  readonly waiting: WaitingRequests;
  /** In the order in which they are served. */
  readonly running: Request[] = [];
  /** `null` without a KV connector. */
  readonly handovers: KvHandovers | null;
  /** What the workers are to be told with the next step. */
  readonly preemptedIndices: number[] = [];
  readonly finishedIndices: number[] = [];
  /** Since the start. */
  numPreemptions = 0;
  readonly speculation: SpeculationCounts = new SpeculationCounts();
  readonly #capture: CaptureEngineHalf | null;
  readonly #config: EngineConfig;
  /** Wanted requests alive, and whether there was one since the last cache reset. */
  #numWanted = 0;
  #wasWanted = false;

  constructor(
    config: EngineConfig,
    capture: CaptureEngineHalf | null,
    hasher: BlockHasher,
    connector: KvConnector | null,
  ) {
    this.kv = new KVCacheManager(config, hasher, capture);
    this.waiting = new WaitingRequests(config.policy);
    this.handovers = connector === null ? null : new KvHandovers(connector, this.kv, capture, this.waiting);
    this.#capture = capture;
    this.#config = config;
  }

  add(request: Request): void {
    if (this.#capture?.wants(request) === true) {
      request.wanted = true;
      this.#numWanted += 1;
      this.#wasWanted = true;
    }
    this.waiting.add(request);
  }

  /**
   * Tokens that must have room before a waiting request is admitted. Blocks that are loaded or kept for another engine
   * cannot be taken back. A request that runs alone beside them and outgrows the rest of the pool preempts itself; it
   * comes back only when all of it fits, because it would preempt itself again for as long as these blocks are held.
   */
  tokensToReserve(request: Request): number {
    const { reserveFullIsl, numSpeculativeTokens } = this.#config;
    const wouldRunAlone = this.running.length === 0 && request.numPreemptions > 0;
    if (wouldRunAlone && this.handovers?.isUnderWay === true) return request.numTokens + numSpeculativeTokens;
    return reserveFullIsl ? request.numTokens : 0;
  }

  /** A waiting request, which has its blocks, runs from here on. */
  admit(request: Request): void {
    this.waiting.remove(request);
    this.running.push(request);
    request.status = RequestStatus.running;
  }

  /**
   * The place in the running list of the request that gives way: the last, or under `priority` the one that ranks last.
   * vLLM leaves the choice among equal (priority, arrival time) to the order of the list, which rotates as requests are
   * resumed: equals can then preempt each other for ever. A rank without ties lets the first of them come to its end.
   */
  victim(): number {
    const { running } = this;
    let at = running.length - 1;
    if (this.#config.policy === 'fcfs') return at;
    for (let i = at - 1; i >= 0; i -= 1) if (comesBefore(running[at]!, running[i]!)) at = i;
    return at;
  }

  /** A request that has left the running list loses its blocks and waits at the front. Its tokens and hashes stay. */
  preempt(request: Request, dropStaleOutput: boolean): void {
    if (request.wanted) this.#capture!.onPreempt?.(request);
    this.kv.free(request);
    request.startOver(dropStaleOutput);
    this.numPreemptions += 1;
    this.waiting.prepend(request);
    this.preemptedIndices.push(request.index);
  }

  /**
   * Makes the answer to the driver; a request that ends here gives back all that it holds. It may still stand in the
   * running list.
   */
  emit(request: Request, newTokenIds: number[], finishReason: FinishReason | null): EngineCoreOutput {
    const { requestId } = request;
    const routedExperts = request.wanted ? this.#capture!.take(request, newTokenIds.length, finishReason) : null;
    if (finishReason === null) {
      return { requestId, newTokenIds, finishReason: null, stopReason: null, prefill: null, routedExperts };
    }
    if (request.wanted) {
      this.#capture!.release(request);
      this.#numWanted -= 1;
    }
    if (this.handovers === null || !this.handovers.keepsBlocks(request, finishReason)) this.kv.free(request);
    this.waiting.remove(request);
    request.status = RequestStatus.finished;
    this.finishedIndices.push(request.index);
    const prefill = {
      numPromptTokens: request.numPromptTokens,
      numCachedTokens: Math.max(request.numCachedTokens, 0),
      numPreemptions: request.numPreemptions,
    };
    return { requestId, newTokenIds, finishReason, stopReason: request.stopReason, prefill, routedExperts };
  }

  /** Ends a live request at once, wherever it stands. Outputs of it that are on their way are ignored. */
  abort(request: Request): EngineCoreOutput {
    const wasRunning = request.status === RequestStatus.running;
    const output = this.emit(request, [], 'abort');
    if (wasRunning) this.running.splice(this.running.indexOf(request), 1);
    return output;
  }

  dropFinishedFromRunning(): void {
    const { running } = this;
    let kept = 0;
    for (let i = 0; i < running.length; i += 1) {
      const request = running[i]!;
      if (request.status !== RequestStatus.finished) {
        running[kept] = request;
        kept += 1;
      }
    }
    running.length = kept;
  }

  /** See `Scheduler.resetPrefixCache`. */
  resetPrefixCache(resetRunning: boolean): boolean {
    if (resetRunning) {
      if (this.handovers !== null) {
        if (this.handovers.isUnderWay) return false;
        this.handovers.dropLoaded();
      }
      for (let request = this.running.pop(); request !== undefined; request = this.running.pop()) {
        this.preempt(request, true);
      }
    }
    if (!this.kv.pool.resetCache()) return false;
    if (this.#wasWanted) this.#capture!.onCacheReset?.();
    this.#wasWanted = this.#numWanted > 0;
    return true;
  }
}
