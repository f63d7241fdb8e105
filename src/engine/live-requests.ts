/**
 * The live requests: the state of each, the blocks that it holds, and every transition between states.
 *
 *     add ─▶ waiting ──admit──▶ running ──end──▶ finished
 *              ▲ │ ▲              │
 *              │ │ └───preempt────┘
 *              └ waits for remote KV: see kv-handovers.ts
 *
 * Invariant: a waiting request holds no blocks, unless its KV was loaded; an ended request holds none, unless they are
 * handed over.
 */

import type { CaptureEngineHalf } from '../contract/capture.ts';
import type { EngineConfig } from '../contract/config.ts';
import type { EngineCoreOutput, FinishReason, PrefillStatistics } from '../contract/engine-core-output.ts';
import type { KvConnector, KvLoadOutcome } from '../contract/kv-connector.ts';
import { fastBlockHasher, type BlockHasher } from './kv/block-hash.ts';
import { KVCacheManager } from './kv/kv-cache-manager.ts';
import { KvHandovers } from './kv-handovers.ts';
import { comesBefore } from './request-queue.ts';
import { RequestStatus, type Request } from './request.ts';
import { WaitingRequests } from './waiting-requests.ts';

export type LiveRequestsOptions = Readonly<{
  /** Absent: `fastBlockHasher`. */
  hasher?: BlockHasher;
  /** Where KV comes from and goes to. Absent or `null`: nowhere. */
  connector?: KvConnector | null;
}>;

export class LiveRequests {
  readonly config: EngineConfig;
  /** The engine half of the capture design; `null`: rows are not captured. */
  readonly capture: CaptureEngineHalf | null;
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
  /** Live wanted requests, and whether there was one since the last cache reset. */
  #numWanted = 0;
  #wasWanted = false;

  constructor(
    config: EngineConfig,
    capture: CaptureEngineHalf | null,
    { hasher = fastBlockHasher, connector = null }: LiveRequestsOptions = {},
  ) {
    this.config = config;
    this.capture = capture;
    const kv = new KVCacheManager(config, hasher, capture);
    const waiting = new WaitingRequests(config.policy);
    this.kv = kv;
    this.waiting = waiting;
    this.handovers = connector === null ? null : new KvHandovers({ connector, kv, capture, waiting });
  }

  /** Takes in a request, which must be valid and able to fit the pool alone. */
  add(request: Request): void {
    if (this.capture?.wants(request) === true) {
      request.wanted = true;
      this.#numWanted += 1;
      this.#wasWanted = true;
    }
    this.waiting.add(request);
  }

  /**
   * Returns how many tokens must have room before a waiting request is admitted. Blocks that are loaded or kept for
   * another engine cannot be taken back. A request that runs alone beside them and outgrows the rest of the pool
   * preempts itself. It comes back only when all of it fits: it would preempt itself again as long as these blocks are
   * held.
   */
  tokensToReserve(request: Request): number {
    const { reserveFullIsl, numSpeculativeTokens } = this.config;
    const wouldRunAlone = this.running.length === 0 && request.numPreemptions > 0;
    if (wouldRunAlone && this.handovers?.isUnderWay === true) return request.numTokens + numSpeculativeTokens;
    return reserveFullIsl ? request.numTokens : 0;
  }

  /** A waiting request has its blocks and runs from here on. */
  admit(request: Request): void {
    this.waiting.remove(request);
    this.running.push(request);
    request.status = RequestStatus.running;
  }

  /**
   * Returns the place in the running list of the request that gives way: the last one, or under `priority` the one that
   * ranks last. vLLM leaves the choice among equal (priority, arrival time) to the order of the list, which rotates as
   * requests are resumed: equal requests can then preempt each other forever. A rank without ties lets the first of
   * them finish.
   */
  victim(): number {
    const { running } = this;
    let at = running.length - 1;
    if (this.config.policy === 'fcfs') return at;
    for (let i = at - 1; i >= 0; i -= 1) if (comesBefore(running[at]!, running[i]!)) at = i;
    return at;
  }

  /**
   * A request that has left the running list loses its blocks and waits at the front. Its tokens and hashes stay. With
   * `dropStaleOutput` its outputs in flight are thrown away.
   */
  preempt(request: Request, { dropStaleOutput }: Readonly<{ dropStaleOutput: boolean }>): void {
    if (request.wanted) this.capture!.onPreempt?.(request);
    this.kv.free(request);
    request.startOver(dropStaleOutput);
    this.handovers?.onPreempted(request);
    this.numPreemptions += 1;
    this.waiting.prepend(request);
    this.preemptedIndices.push(request.index);
  }

  /**
   * Makes an output for the driver. A request that ends with it gives back all that it holds; it may still stand in the
   * running list.
   */
  emit(request: Request, newTokenIds: number[], finishReason: FinishReason | null): EngineCoreOutput {
    const { requestId } = request;
    const routedExperts = request.wanted ? this.capture!.take(request, newTokenIds.length, finishReason) : null;
    const isFirst = request.numOutputTokens === newTokenIds.length;
    const prefill = isFirst || finishReason !== null ? prefillStatistics(request) : null;
    if (finishReason === null) {
      return { requestId, newTokenIds, finishReason: null, stopReason: null, prefill, routedExperts };
    }
    if (request.wanted) {
      this.capture!.release(request);
      this.#numWanted -= 1;
    }
    if (this.handovers === null || !this.handovers.keepsBlocks(request, finishReason)) this.kv.free(request);
    this.waiting.remove(request);
    request.status = RequestStatus.finished;
    this.finishedIndices.push(request.index);
    return { requestId, newTokenIds, finishReason, stopReason: request.stopReason, prefill, routedExperts };
  }

  /** Ends a live request at once, in any state. Its outputs in flight will be ignored. */
  abort(request: Request): EngineCoreOutput {
    const wasRunning = request.status === RequestStatus.running;
    const output = this.emit(request, [], 'abort');
    if (wasRunning) this.running.splice(this.running.indexOf(request), 1);
    return output;
  }

  /** A load has ended, see `KvHandovers.endLoad`. Returns the request's last output if that ends it. */
  finishLoad(loadId: number, outcome: KvLoadOutcome): EngineCoreOutput | null {
    const failed = this.handovers!.endLoad(loadId, outcome);
    return failed === null ? null : this.emit(failed, [], 'error');
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

  /**
   * Forgets every cached prefix. With `resetRunning` all running requests are preempted first and their outputs in
   * flight are thrown away; a request whose KV was loaded, but which does not run yet, gives it up.
   *
   * Returns `false`, and nothing has happened, if blocks stay held: by a running request, or with `resetRunning` by a
   * load or for another engine to read. The caller can try again when they are free.
   */
  resetPrefixCache({ resetRunning }: Readonly<{ resetRunning: boolean }>): boolean {
    if (resetRunning) {
      if (this.handovers !== null) {
        if (this.handovers.isUnderWay) return false;
        this.handovers.dropLoaded();
      }
      for (let request = this.running.pop(); request !== undefined; request = this.running.pop()) {
        this.preempt(request, { dropStaleOutput: true });
      }
    }
    if (!this.kv.pool.resetCache()) return false;
    if (this.#wasWanted) this.capture!.onCacheReset?.();
    this.#wasWanted = this.#numWanted > 0;
    return true;
  }
}

function prefillStatistics(request: Request): PrefillStatistics {
  return {
    numPromptTokens: request.numPromptTokens,
    numCachedTokens: Math.max(request.numCachedTokens, 0),
    numPreemptions: request.numPreemptions,
  };
}
