/** One request inside the engine core: its tokens, its blocks and its progress. After `vllm/v1/request.py`. */

import type { EngineRequest, CaptureRequest, SamplingParams } from '../contract/request.ts';

export const RequestStatus = { waiting: 0, running: 1, preempted: 2, finished: 3, waitingForRemoteKvs: 4 } as const;
export type RequestStatus = (typeof RequestStatus)[keyof typeof RequestStatus];

const NO_DRAFTS = new Uint32Array(0);
const NO_HASHES = new Uint32Array(0);

/** Which queue holds a waiting request. */
export const QueueName = { none: 0, waiting: 1, skipped: 2 } as const;
export type QueueName = (typeof QueueName)[keyof typeof QueueName];

/** Every field is set in the constructor and keeps its type, so that all requests share one hidden class. */
export class Request implements CaptureRequest {
  readonly index: number;
  readonly requestId: string;
  readonly maxTokens: number;
  readonly minTokens: number;
  /** −1: there is none. */
  readonly eosTokenId: number;
  readonly stopTokenIds: SamplingParams['stopTokenIds'];
  readonly priority: number;
  readonly arrivalTime: number;
  readonly cacheSalt: string | null;
  readonly numPromptTokens: number;
  readonly returnRoutedExperts: boolean;
  readonly routedExpertsPromptStart: number;
  /** The capture design wants this request's rows. */
  wanted = false;

  status: RequestStatus = RequestStatus.waiting;
  /** Prompt, then outputs; `numTokens` of them. A written token never changes, so that others may read the array. */
  tokenIds: Uint32Array;
  numTokens: number;
  /** Tokens whose KV is computed or scheduled to be, hits included. Runs ahead of the device. */
  numComputedTokens = 0;
  /** Tokens of steps whose output has not arrived. */
  numInFlightTokens = 0;
  /** Steps in flight, not stale, that will sample for this request. Each brings at least one token. */
  numInFlightSamples = 0;
  /** Asynchronous scheduling: how many tokens steps in flight may bring, drafts included. */
  numOutputPlaceholders = 0;
  /** How many of `numInFlightTokens` were scheduled before the last preemption. */
  numStaleOutputTokens = 0;
  /** Stale outputs are thrown away instead of delivered (after a cache reset). */
  dropStaleOutput = false;
  /** The last scheduled step does not reach the end of the known tokens, and samples nothing. */
  isPrefillChunk = false;
  /** Drafts for the next step; `numDraftTokens` of them. */
  draftTokenIds: Uint32Array = NO_DRAFTS;
  numDraftTokens = 0;

  blockIds: number[] = [];
  /** Blocks from the front of the table that bear a hash. */
  numCachedBlocks = 0;
  /** Hashes of `numHashedBlocks` full blocks of `tokenIds`, with or without a KV block. */
  blockHashes: Uint32Array = NO_HASHES;
  numHashedBlocks = 0;
  /** u32 words of one hash; 0 before the first hash. */
  blockHashWords = 0;

  numPreemptions = 0;
  /** Prompt tokens that the first admission found cached; −1 before it. */
  numCachedTokens = -1;
  stopReason: number | null = null;

  /** Tokens whose KV is elsewhere; −1 until the connector is asked, 0 once they are loaded. */
  externalTokens = -1;
  /** The positions of its load. */
  loadFrom = 0;
  loadTo = 0;

  /** What the step being scheduled gives this request. Meaningful while `scheduledStepId` is that step. */
  scheduledStepId = -1;
  stepKind = 0;
  stepNumTokens = 0;
  stepNumDrafts = 0;
  stepFirstNewBlock = 0;

  /** This request's place in a queue: links of a list, or the index in a heap. */
  queueName: QueueName = QueueName.none;
  queueNext: Request | null = null;
  queuePrevious: Request | null = null;
  heapIndex = -1;

  constructor(index: number, request: EngineRequest) {
    this.index = index;
    this.requestId = request.requestId;
    this.maxTokens = request.sampling.maxTokens;
    this.minTokens = request.sampling.minTokens;
    this.eosTokenId = request.sampling.eosTokenId ?? -1;
    this.stopTokenIds = request.sampling.stopTokenIds;
    this.priority = request.priority;
    this.arrivalTime = request.arrivalTime;
    this.cacheSalt = request.cacheSalt;
    this.numPromptTokens = request.promptTokenIds.length;
    this.returnRoutedExperts = request.sampling.returnRoutedExperts;
    this.routedExpertsPromptStart = request.sampling.routedExpertsPromptStart;
    this.numTokens = this.numPromptTokens;
    this.tokenIds = new Uint32Array(this.numPromptTokens + Math.min(this.maxTokens, 64));
    this.tokenIds.set(request.promptTokenIds);
  }

  get numOutputTokens(): number {
    return this.numTokens - this.numPromptTokens;
  }

  /**
   * A step is planned that computes `stepNumTokens` more tokens: the counters run ahead to its end. Returns whether the
   * step samples, which it does if it reaches the end of the known tokens.
   */
  runAhead(asyncScheduling: boolean): boolean {
    this.numComputedTokens += this.stepNumTokens;
    this.numInFlightTokens += this.stepNumTokens;
    this.isPrefillChunk = this.numComputedTokens < this.numTokens + this.numOutputPlaceholders;
    if (this.isPrefillChunk) return false;
    if (asyncScheduling) {
      this.numOutputPlaceholders += 1 + this.stepNumDrafts;
      this.numInFlightSamples += 1;
    }
    return true;
  }

  /** An output that is not stale has arrived, and `numRejected` drafts in it were wrong. */
  fallBack(numRejected: number, asyncScheduling: boolean): void {
    this.numComputedTokens -= numRejected;
    if (!asyncScheduling) return;
    this.numOutputPlaceholders -= numRejected;
    this.numInFlightSamples -= 1;
  }

  /**
   * The KV is gone: every token must be computed again. Outputs in flight become stale; with `dropStaleOutput` they
   * will be thrown away.
   */
  startOver(dropStaleOutput: boolean): void {
    this.status = RequestStatus.preempted;
    this.numComputedTokens = 0;
    this.numDraftTokens = 0;
    this.numOutputPlaceholders = 0;
    this.numInFlightSamples = 0;
    // Stale outputs that are to be dropped stay so: their positions have been sampled again.
    this.dropStaleOutput = dropStaleOutput || (this.dropStaleOutput && this.numStaleOutputTokens > 0);
    this.numStaleOutputTokens = this.numInFlightTokens;
    this.numPreemptions += 1;
  }

  /** Outputs in flight will never arrive. */
  forgetInFlight(): void {
    this.numInFlightTokens = 0;
    this.numStaleOutputTokens = 0;
    this.dropStaleOutput = false;
  }

  /** Returns a copy of the output tokens. */
  outputTokenIds(): number[] {
    return Array.from(this.tokenIds.subarray(this.numPromptTokens, this.numTokens));
  }

  appendToken(tokenId: number): void {
    if (this.numTokens === this.tokenIds.length) {
      const grown = new Uint32Array(this.numTokens * 2);
      grown.set(this.tokenIds);
      this.tokenIds = grown;
    }
    this.tokenIds[this.numTokens] = tokenId;
    this.numTokens += 1;
  }

  /**
   * Synchronous speculative decoding: the next step verifies the first `limit` of the drafts `tokens[from … to)`.
   * Drafts follow the last token: they are void if the request lost its KV meanwhile, or if steps in flight will bring
   * more tokens.
   */
  setDrafts(tokens: Uint32Array, from: number, to: number, limit: number): void {
    const areNext = this.status === RequestStatus.running && this.numInFlightTokens === 0 && !this.isPrefillChunk;
    const count = areNext ? Math.min(to - from, limit) : 0;
    if (count > 0 && this.draftTokenIds.length < limit) this.draftTokenIds = new Uint32Array(limit);
    for (let i = 0; i < count; i += 1) this.draftTokenIds[i] = tokens[from + i]!;
    this.numDraftTokens = count;
  }

  /** Only the device knows the next `count` drafts. */
  setDraftPlaceholders(count: number, placeholder: number): void {
    if (this.draftTokenIds.length < count) this.draftTokenIds = new Uint32Array(count);
    this.draftTokenIds.fill(placeholder, 0, count);
    this.numDraftTokens = count;
  }
}
