/**
 * Decides, step by step, which tokens of which requests the workers compute next, and takes in what they answer. Its decisions are
 * those of `vllm/v1/core/sched/scheduler.py` and `async_scheduler.py`, one for one.
 *
 * There is no prefill and no decode phase: each request has tokens that are known and tokens that are computed, and every step lets the
 * second catch up with the first within the step's token budget.
 *
 *     add ─▶ waiting ──admit──▶ running ──last token──▶ finished          skipped: preempted with outputs still on their way;
 *              ▲ │ ▲              │                                               resuming now could sample a token a second time
 *              │ │ └───preempt────┘
 *              └ waits for remote KV: see kv-handovers.ts
 *
 * One long file, since planning, taking in, preempting and ending all move the same counters of a request, and are only right together.
 */

import type { CaptureEngineHalf } from '../contract/capture.ts';
import type { EngineConfig } from '../contract/config.ts';
import type { EngineCoreOutput, FinishReason } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { KvConnector, KvLoadOutcome } from '../contract/kv-connector.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { CaptureRequest } from '../contract/request.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import { PLACEHOLDER_TOKEN, RequestKind } from '../contract/scheduler-output.ts';
import { fastBlockHasher, type BlockHasher } from './block-hash.ts';
import { KVCacheManager, NO_HITS } from './kv-cache-manager.ts';
import { KvHandovers } from './kv-handovers.ts';
import { comesBefore, createRequestQueue, type RequestQueue } from './request-queue.ts';
import { QueueName, RequestStatus, type Request } from './request.ts';
import { ScheduledStep } from './scheduled-step.ts';
import { checkStop } from './stop-check.ts';
import { WorkerOrder } from './worker-order.ts';

export class Scheduler {
  readonly config: EngineConfig;
  readonly kv: KVCacheManager;
  /** Totals since the start. */
  numPreemptions = 0;
  numScheduledTokens = 0;
  numPrefixQueryTokens = 0;
  numPrefixHitTokens = 0;
  numPrefixRefusedTokens = 0;
  numExternalTokens = 0;

  /** `null` without a KV connector. */
  readonly handovers: KvHandovers | null;
  readonly #capture: CaptureEngineHalf | null;
  readonly #waiting: RequestQueue;
  readonly #skipped: RequestQueue;
  readonly #held: Request[] = [];
  #running: Request[] = [];
  #nextStepId = 0;
  /** Drafts that make a single token as wide as a decode; none where a step may not be that wide. */
  readonly #decodePadding: number;
  /** A running request of the step being scheduled was in the middle of its prompt. */
  #prefillScheduled = false;
  #preempted: number[] = [];
  #finished: number[] = [];
  readonly #inFlight: ScheduledStep[] = [];
  readonly #spareSteps: ScheduledStep[] = [];
  readonly #order = new WorkerOrder();
  readonly #live: (requestIndex: number) => CaptureRequest | null;
  #updatingStep: ScheduledStep | null = null;

  constructor(
    config: EngineConfig,
    capture: CaptureEngineHalf | null,
    hasher: BlockHasher = fastBlockHasher,
    connector: KvConnector | null = null,
  ) {
    this.config = config;
    this.kv = new KVCacheManager(config, hasher);
    this.#capture = capture;
    this.handovers = connector === null ? null : new KvHandovers(connector);
    const { numSpeculativeTokens, longPrefillTokenThreshold } = config;
    const fits = longPrefillTokenThreshold === 0 || numSpeculativeTokens < longPrefillTokenThreshold;
    this.#decodePadding = fits ? numSpeculativeTokens : 0;
    this.#waiting = createRequestQueue(config.policy, QueueName.waiting);
    this.#skipped = createRequestQueue(config.policy, QueueName.skipped);
    this.#live = (requestIndex) => {
      const place = this.#order.placeOf(requestIndex);
      if (place < 0) return null;
      const request = this.#updatingStep!.requests[place]!;
      if (request.status === RequestStatus.finished) return null;
      return request.numStaleOutputTokens > 0 && request.dropStaleOutput ? null : request;
    };
  }

  get numRunning(): number {
    return this.#running.length;
  }

  get numWaiting(): number {
    return this.#waiting.length + this.#skipped.length;
  }

  get numStepsInFlight(): number {
    return this.#inFlight.length;
  }

  /** Something to schedule or to tell the workers may be left. */
  get hasWork(): boolean {
    return this.#running.length + this.numWaiting + this.#finished.length + this.#preempted.length > 0;
  }

  /** The running requests in the order in which they are served. For checks. */
  get running(): readonly Request[] {
    return this.#running;
  }

  /** Waiting requests in the order in which they are looked at. For checks. */
  waiting(): Request[] {
    return [...this.#skipped.toArray(), ...this.#waiting.toArray()];
  }

  /** Takes in a request, which must be valid and able to fit the pool alone. */
  add(request: Request): void {
    if (this.#capture !== null) {
      request.wanted = this.#capture.wants(request);
      // A design that never wanted anybody is not told of evictions either (L5).
      if (request.wanted) {
        this.kv.pool.onEvicted ??= (blockId) => this.#capture!.onBlockEvicted(blockId);
        this.kv.onCached ??= (cached, firstBlock) => this.#capture!.onBlocksCached?.(cached, firstBlock);
      }
    }
    this.#waiting.add(request);
  }

  /**
   * Plans the next step and counts its tokens as computed. Steps may be planned before the outputs of earlier ones have arrived. The
   * plan can be empty. It stays valid until `update` takes in its output.
   */
  schedule(): SchedulerOutput {
    const step = this.#spareSteps.pop() ?? new ScheduledStep();
    step.begin(this.#nextStepId);
    this.#nextStepId += 1;
    const numPreempted = this.numPreemptions;
    let budget = this.#scheduleRunning(step);
    const isDecodeOnly = step.count > 0 && !this.#prefillScheduled;
    if (this.numPreemptions === numPreempted && budget > 0) budget = this.#scheduleWaiting(step, budget, isDecodeOnly);
    this.#dispatch(step, this.config.maxNumBatchedTokens - budget);
    this.#inFlight.push(step);
    return step.output;
  }

  /** Takes back the step planned last, which runs no request: its id and what it told are given to the next one. */
  undoEmptySchedule(): void {
    const step = this.#inFlight.pop()!;
    this.#nextStepId -= 1;
    this.#spareSteps.push(step);
  }

  /** Running requests first, in their order. Answers what is left of the token budget. */
  #scheduleRunning(step: ScheduledStep): number {
    const { config } = this;
    const { maxModelLen, longPrefillTokenThreshold, numSpeculativeTokens } = config;
    const { stepId } = step.output;
    let budget = config.maxNumBatchedTokens;
    let next = 0;
    this.#prefillScheduled = false;
    while (next < this.#running.length && budget > 0) {
      const request = this.#running[next]!;
      // Steps in flight are sure to bring the last token: one more would compute nothing that anybody reads.
      if (
        request.numInFlightSamples > 0 &&
        request.numTokens + request.numInFlightSamples >= request.numPromptTokens + request.maxTokens
      ) {
        next += 1;
        continue;
      }
      const numComputed = request.numComputedTokens;
      let numNew = request.numTokens + request.numDraftTokens + request.numOutputPlaceholders - numComputed;
      if (longPrefillTokenThreshold > 0 && numNew > longPrefillTokenThreshold) numNew = longPrefillTokenThreshold;
      if (numNew > budget) numNew = budget;
      if (numNew > maxModelLen - 1 - numComputed) numNew = maxModelLen - 1 - numComputed;
      if (numNew <= 0) {
        next += 1;
        continue;
      }
      const firstNewBlock = request.blockIds.length;
      let fits = true;
      while (!this.kv.allocateSlots(request, numNew, numSpeculativeTokens, NO_HITS, 0, 0, 0)) {
        const at = this.#victim();
        const victim = this.#running[at]!;
        let uncomputed = NO_HITS;
        if (victim.scheduledStepId === stepId) {
          step.withdraw(victim);
          victim.scheduledStepId = -1;
          budget += victim.stepNumTokens;
          uncomputed = this.kv.uncomputedBlocks(victim);
        }
        this.#running.splice(at, 1);
        if (at < next) next -= 1;
        this.#preempt(victim, false);
        // Its place in the free list stays that of a cached block, as in vLLM, where it also keeps its hash: a later hit would attend to
        // KV that nobody computed (L9).
        for (const id of uncomputed) this.kv.pool.evict(id);
        if (victim === request) {
          fits = false;
          break;
        }
      }
      if (!fits) break;

      request.scheduledStepId = stepId;
      request.stepKind = RequestKind.running;
      request.stepNumTokens = numNew;
      request.stepFirstNewBlock = firstNewBlock;
      request.stepNumDrafts = 0;
      if (request.numDraftTokens > 0) {
        const numDrafts = numNew + numComputed - request.numTokens - request.numOutputPlaceholders;
        if (numDrafts > 0) request.stepNumDrafts = Math.min(numDrafts, request.numDraftTokens);
        request.numDraftTokens = 0;
      }
      if (request.isPrefillChunk) this.#prefillScheduled = true;
      step.add(request);
      budget -= numNew;
      next += 1;
    }
    return budget;
  }

  /** Then waiting requests, until one does not fit. Answers what is left of the token budget. */
  #scheduleWaiting(step: ScheduledStep, leftBudget: number, isDecodeOnly: boolean): number {
    const { config } = this;
    const { longPrefillTokenThreshold, numSpeculativeTokens } = config;
    let budget = leftBudget;
    while (budget > 0 && this.#running.length < config.maxNumSeqs) {
      const request = this.#nextWaiting();
      if (request === null) break;
      const queue = request.queueName === QueueName.skipped ? this.#skipped : this.#waiting;
      if (request.numStaleOutputTokens > 0 && !request.dropStaleOutput) {
        queue.remove(request);
        this.#held.push(request);
        continue;
      }
      // KV that came from elsewhere stands in the request's own blocks, and what is cached of its prefix too.
      const isLoaded = request.blockIds.length > 0;
      const hits = isLoaded ? NO_HITS : this.kv.findPrefix(request);
      const numHits = hits.length > 0 && request.wanted ? this.#usablePrefix(request, hits) : hits.length;
      const numComputed = isLoaded ? request.numComputedTokens : numHits * config.blockSize;
      if (this.handovers !== null && !isLoaded && this.#canLoad(request, numComputed)) {
        if (!this.#beginLoad(request, hits, numHits, queue)) break;
        continue;
      }
      let numNew = request.numTokens - numComputed;
      let numPadding = 0;
      // A request that needs one token joins a batch of decodes in their shape, with drafts that stand for nothing and are rejected. It
      // waits rather than break the shape.
      if (numNew === 1 && isDecodeOnly && this.#decodePadding > 0) {
        numPadding = this.#decodePadding;
        numNew += numPadding;
        if (numNew > budget || numComputed + numNew > config.maxModelLen) break;
      }
      if (longPrefillTokenThreshold > 0 && numNew > longPrefillTokenThreshold) numNew = longPrefillTokenThreshold;
      if (numNew > budget) {
        if (!config.enableChunkedPrefill) break;
        numNew = budget;
      }
      const reserveTokens = config.reserveFullIsl ? request.numTokens : 0;
      if (
        !this.kv.allocateSlots(
          request,
          numNew,
          numSpeculativeTokens,
          hits,
          numHits,
          reserveTokens,
          isLoaded ? 0 : this.kv.watermarkBlocks,
        )
      ) {
        if (this.handovers !== null && this.#running.length === 0 && this.#dropLoaded(request)) continue;
        break;
      }

      queue.remove(request);
      this.#running.push(request);
      request.scheduledStepId = step.output.stepId;
      request.stepKind = request.status === RequestStatus.preempted ? RequestKind.resumed : RequestKind.new;
      request.status = RequestStatus.running;
      request.numComputedTokens = numComputed;
      request.stepNumTokens = numNew;
      request.stepNumDrafts = numPadding;
      if (numPadding > 0) request.setDraftPlaceholders(numPadding, PLACEHOLDER_TOKEN);
      request.numDraftTokens = 0;
      request.stepFirstNewBlock = 0;
      if (request.numCachedTokens < 0) request.numCachedTokens = numComputed;
      request.externalTokens = 0;
      if (isLoaded) this.handovers!.loaded.delete(request);
      else this.#countPrefix(request, hits.length, numHits);
      step.add(request);
      budget -= numNew;
    }
    for (let request = this.#held.pop(); request !== undefined; request = this.#held.pop())
      this.#skipped.prepend(request);
    return budget;
  }

  #countPrefix(request: Request, numFound: number, numHits: number): void {
    const { blockSize } = this.config;
    this.numPrefixQueryTokens += request.numTokens;
    this.numPrefixHitTokens += numHits * blockSize;
    this.numPrefixRefusedTokens += (numFound - numHits) * blockSize;
    if (numHits > 0 && request.wanted) this.#capture!.onPrefixHit(request, numHits);
  }

  /** There is KV elsewhere behind what is cached here, and the request may use it. */
  #canLoad(request: Request, numComputed: number): boolean {
    const accepts = (hasRows: boolean): boolean =>
      !request.wanted || this.#capture!.acceptsExternalKv?.(request, hasRows) === true;
    // The last token is computed here in any case.
    const numUseful = Math.min(this.handovers!.numExternalTokens(request, accepts), request.numTokens - 1);
    return numUseful > numComputed;
  }

  /** The request gets the blocks that its KV is loaded into, and leaves the queue until it has come. `false`: there are too few. */
  #beginLoad(request: Request, hits: readonly number[], numHits: number, queue: RequestQueue): boolean {
    const { blockSize, reserveFullIsl } = this.config;
    const to = request.externalTokens;
    const reserveTokens = reserveFullIsl ? request.numTokens : 0;
    if (!this.kv.takeBlocks(request, to, hits, numHits, reserveTokens, this.kv.watermarkBlocks)) {
      return this.#running.length === 0 && this.#dropLoaded(request);
    }
    queue.remove(request);
    this.#countPrefix(request, hits.length, numHits);
    this.handovers!.beginLoad(request, numHits * blockSize, to, blockSize);
    return true;
  }

  /**
   * Nothing runs, and loaded requests hold the blocks that `request` needs: one of them gives them back and computes its tokens instead. Without
   * it two of them could wait for each other for ever.
   */
  #dropLoaded(request: Request): boolean {
    const victim = this.handovers!.victimFor(request);
    if (victim === null) return false;
    this.handovers!.loaded.delete(victim);
    this.#loseBlocks(victim);
    return true;
  }

  #loseBlocks(request: Request): void {
    if (request.wanted) this.#capture!.onPreempt(request);
    this.kv.free(request);
    request.numComputedTokens = 0;
  }

  /**
   * A load has ended. Answers the request's last output if that ends it. Throws INVARIANT for a load that is not in flight.
   *
   * On a full hit the last token is computed again: only computing a token yields the one behind it.
   */
  finishLoad(loadId: number, outcome: KvLoadOutcome): EngineCoreOutput | null {
    const request = this.handovers!.endLoad(loadId);
    if (request.status === RequestStatus.finished) {
      this.kv.free(request);
      return null;
    }
    request.status = RequestStatus.waiting;
    if (outcome.kind === 'fail') return this.#emit(request, [], 'error');
    const { loadFrom } = request;
    request.numComputedTokens = loadFrom;
    if (outcome.kind === 'loaded') {
      const to = Math.min(request.loadTo, request.numTokens - 1);
      request.numComputedTokens = to;
      this.numExternalTokens += request.loadTo - loadFrom;
      this.kv.cacheLoadedBlocks(request, to);
      if (request.wanted) this.#capture!.onExternalKv!(request, loadFrom, to, outcome.rows);
    }
    this.handovers!.loaded.add(request);
    this.#waiting.prepend(request);
    return null;
  }

  /** Nobody reads the blocks of an ended request any more. Unknown indices are ignored. */
  releaseBlocks(requestIndex: number): void {
    const request = this.handovers!.kept.get(requestIndex);
    if (request === undefined) return;
    this.handovers!.kept.delete(requestIndex);
    this.kv.free(request);
  }

  /** Writes the message to the workers and runs the requests' counters ahead to the end of the step. */
  #dispatch(step: ScheduledStep, numTokens: number): void {
    const { asyncScheduling, numSpeculativeTokens } = this.config;
    const { output, count, requests } = step;
    step.reserve();
    output.numRequests = count;
    output.totalNumScheduledTokens = numTokens;
    this.numScheduledTokens += numTokens;
    for (const index of this.#preempted) output.preemptedIndices.push(index);
    for (const index of this.#finished) output.finishedIndices.push(index);
    if (this.#preempted.length > 0) this.#preempted.length = 0;
    if (this.#finished.length > 0) this.#finished.length = 0;

    const { samples } = step;
    for (let i = 0; i < count; i += 1) {
      const request = requests[i]!;
      step.write(i, request);
      request.numComputedTokens += request.stepNumTokens;
      request.numInFlightTokens += request.stepNumTokens;
      const isPrefillChunk = request.numComputedTokens < request.numTokens + request.numOutputPlaceholders;
      request.isPrefillChunk = isPrefillChunk;
      samples[i] = isPrefillChunk ? 0 : 1;
      if (asyncScheduling && !isPrefillChunk) {
        request.numOutputPlaceholders += 1 + request.stepNumDrafts;
        request.numInFlightSamples += 1;
        if (numSpeculativeTokens > 0) request.setDraftPlaceholders(numSpeculativeTokens, PLACEHOLDER_TOKEN);
      }
    }
    // The drafts that a placeholder stands for are those of the step before; who was left out of this step has none any more.
    if (asyncScheduling && numSpeculativeTokens > 0) {
      for (const request of this.#running) if (request.scheduledStepId !== output.stepId) request.numDraftTokens = 0;
    }
    if (step.wanted.length > 0) this.#capture!.onScheduled(output, step.wanted, step.wantedPositions);
  }

  /**
   * Takes in the output of the oldest step in flight. Tokens of a request that was preempted meanwhile still count, except after a cache
   * reset; those of an ended one do not. Throws INVARIANT, and changes nothing, if it is not the output of that step.
   */
  update(modelRunnerOutput: ModelRunnerOutput): EngineCoreOutput[] {
    const step = this.#inFlight[0];
    if (step === undefined || step.output.stepId !== modelRunnerOutput.stepId) {
      const expected =
        step === undefined ? 'no step is in flight' : `step ${step.output.stepId} is the oldest in flight`;
      throw RoutedExpertsError.of('INVARIANT', `output of step ${modelRunnerOutput.stepId} arrived while ${expected}`);
    }
    this.#order.read(step, modelRunnerOutput);
    this.#inFlight.shift();
    if (step.wanted.length > 0) {
      this.#updatingStep = step;
      this.#capture!.onStepOutput(modelRunnerOutput, this.#live);
      this.#updatingStep = null;
    }

    const { count, requests, samples } = step;
    const { numScheduledTokens, draftOffsets } = step.output;
    const { sampledTokenIds, sampledOffsets } = modelRunnerOutput;
    const { positions } = this.#order;
    const { asyncScheduling, maxModelLen } = this.config;
    const outputs: EngineCoreOutput[] = [];
    let someRunningEnded = false;
    for (let i = 0; i < count; i += 1) {
      const request = requests[i]!;
      const numScheduled = numScheduledTokens[i]!;
      request.numInFlightTokens -= numScheduled;
      const isStale = request.numStaleOutputTokens > 0;
      if (isStale) request.numStaleOutputTokens -= numScheduled;
      if (request.status === RequestStatus.finished || samples[i] === 0) continue;
      if (isStale && request.dropStaleOutput) continue;

      const at = positions[i]!;
      const from = sampledOffsets[at]!;
      const to = sampledOffsets[at + 1]!;
      if (!isStale) {
        const numRejected = draftOffsets[i + 1]! - draftOffsets[i]! - (to - from - 1);
        request.numComputedTokens -= numRejected;
        if (asyncScheduling) {
          request.numOutputPlaceholders -= numRejected;
          request.numInFlightSamples -= 1;
        }
      }
      const firstToken = sampledTokenIds[from]!;
      request.appendToken(firstToken);
      let finishReason = checkStop(request, firstToken, maxModelLen);
      const newTokenIds = [firstToken];
      for (let t = from + 1; t < to && finishReason === null; t += 1) {
        const token = sampledTokenIds[t]!;
        request.appendToken(token);
        newTokenIds.push(token);
        finishReason = checkStop(request, token, maxModelLen);
      }
      if (asyncScheduling && !isStale) {
        request.numOutputPlaceholders -= newTokenIds.length;
        this.kv.cacheBlocks(request, request.numComputedTokens - request.numOutputPlaceholders);
      }
      if (finishReason !== null && request.status === RequestStatus.running) someRunningEnded = true;
      outputs.push(this.#emit(request, newTokenIds, finishReason));
    }
    if (someRunningEnded) this.#dropFinishedFromRunning();
    if (modelRunnerOutput.drafts !== null) {
      const { tokenIds, offsets } = modelRunnerOutput.drafts;
      for (let i = 0; i < count; i += 1) {
        const at = positions[i]!;
        this.setDrafts(requests[i]!, tokenIds, offsets[at]!, offsets[at + 1]!);
      }
    }
    this.#order.clear();
    step.end();
    this.#spareSteps.push(step);
    return outputs;
  }

  /** Synchronous speculative decoding: the drafts `tokens[from … to)` are to be verified in the request's next step. */
  setDrafts(request: Request, tokens: Uint32Array, from: number, to: number): void {
    // Drafts follow the request's last token: they are void if it lost its KV meanwhile, or if steps in flight will bring more tokens.
    const areNext =
      request.status === RequestStatus.running && request.numInFlightTokens === 0 && !request.isPrefillChunk;
    if (areNext) request.setDrafts(tokens, from, to, this.config.numSpeculativeTokens);
    else request.numDraftTokens = 0;
  }

  /** Ends a live request at once, wherever it stands. Outputs of it that are on their way are ignored. */
  abort(request: Request): EngineCoreOutput {
    const wasRunning = request.status === RequestStatus.running;
    const output = this.#emit(request, [], 'abort');
    if (wasRunning) this.#running.splice(this.#running.indexOf(request), 1);
    return output;
  }

  /**
   * Forgets every cached prefix. With `resetRunning` all running requests are preempted first, and their outputs in flight are thrown
   * away. Answers `false`, and forgets nothing, if a request still holds blocks.
   */
  resetPrefixCache(resetRunning: boolean): boolean {
    if (resetRunning) this.#preemptAllRunning(true);
    if (!this.kv.pool.resetCache()) return false;
    if (this.kv.pool.onEvicted !== null) this.#capture!.onCacheReset();
    return true;
  }

  /** Every step in flight is void and all KV is gone. Requests stay, with the tokens that were delivered, and are computed again. */
  onWorkersLost(): void {
    for (let step = this.#inFlight.pop(); step !== undefined; step = this.#inFlight.pop()) {
      for (let i = 0; i < step.count; i += 1) {
        const request = step.requests[i]!;
        request.numInFlightTokens = 0;
        request.numStaleOutputTokens = 0;
        request.dropStaleOutput = false;
      }
      step.end();
      this.#spareSteps.push(step);
    }
    this.#loseHandovers();
    this.resetPrefixCache(true);
    this.#capture?.onStepsLost?.();
    // New workers have nothing to forget.
    this.#preempted.length = 0;
    this.#finished.length = 0;
  }

  /** What was loaded is gone, what is being loaded has nowhere to go, and nobody can read what was kept. */
  #loseHandovers(): void {
    const { handovers } = this;
    if (handovers === null) return;
    for (const request of handovers.kept.values()) this.kv.free(request);
    handovers.kept.clear();
    for (const request of handovers.loading.values()) {
      if (request.status === RequestStatus.finished) {
        this.kv.free(request);
        continue;
      }
      this.#loseBlocks(request);
      request.status = RequestStatus.waiting;
      this.#waiting.prepend(request);
    }
    handovers.loading.clear();
    for (const request of handovers.loaded) this.#loseBlocks(request);
    handovers.loaded.clear();
    handovers.connector.onWorkersLost();
  }

  #usablePrefix(request: Request, hits: readonly number[]): number {
    const usable = this.#capture!.usablePrefix(request, hits);
    if (usable >= 0 && usable <= hits.length) return usable;
    throw RoutedExpertsError.of('INVARIANT', `the capture design allows ${usable} of ${hits.length} cached blocks`);
  }

  #nextWaiting(): Request | null {
    const skipped = this.#skipped.peek();
    if (skipped === null) return this.#waiting.peek();
    if (this.config.policy === 'fcfs') return skipped;
    const waiting = this.#waiting.peek();
    return waiting !== null && comesBefore(waiting, skipped) ? waiting : skipped;
  }

  /**
   * The place in the running list of the request that gives way: the last, or under `priority` the one that ranks last. vLLM leaves the choice
   * among equal (priority, arrival time) to the order of the list, which rotates as requests are resumed: equals can then preempt each
   * other for ever. A rank without ties lets the first of them come to its end.
   */
  #victim(): number {
    const running = this.#running;
    let at = running.length - 1;
    if (this.config.policy === 'fcfs') return at;
    for (let i = at - 1; i >= 0; i -= 1) if (comesBefore(running[at]!, running[i]!)) at = i;
    return at;
  }

  /** The request, which has left the running list, loses its blocks and waits at the front. Its tokens and hashes stay. */
  #preempt(request: Request, dropStaleOutput: boolean): void {
    if (request.wanted) this.#capture!.onPreempt(request);
    this.kv.free(request);
    request.status = RequestStatus.preempted;
    request.numComputedTokens = 0;
    request.numDraftTokens = 0;
    request.numOutputPlaceholders = 0;
    request.numInFlightSamples = 0;
    // A share that is being dropped stays dropped: its positions have been sampled again.
    request.dropStaleOutput = dropStaleOutput || (request.dropStaleOutput && request.numStaleOutputTokens > 0);
    request.numStaleOutputTokens = request.numInFlightTokens;
    request.numPreemptions += 1;
    this.numPreemptions += 1;
    this.#waiting.prepend(request);
    this.#preempted.push(request.index);
  }

  #preemptAllRunning(dropStaleOutput: boolean): void {
    for (let request = this.#running.pop(); request !== undefined; request = this.#running.pop()) {
      this.#preempt(request, dropStaleOutput);
    }
  }

  /** Makes the answer to the driver; a request that ends here gives back all that it holds. */
  #emit(request: Request, newTokenIds: number[], finishReason: FinishReason | null): EngineCoreOutput {
    const rows = request.wanted ? this.#capture!.take(request, newTokenIds.length, finishReason) : null;
    if (finishReason === null) {
      return {
        requestId: request.requestId,
        newTokenIds,
        finishReason: null,
        stopReason: null,
        prefill: null,
        routedExperts: rows,
      };
    }
    if (request.wanted) this.#capture!.release(request);
    this.#giveUpBlocks(request, finishReason);
    if (request.queueName === QueueName.waiting) this.#waiting.remove(request);
    else if (request.queueName === QueueName.skipped) this.#skipped.remove(request);
    request.status = RequestStatus.finished;
    this.#finished.push(request.index);
    return {
      requestId: request.requestId,
      newTokenIds,
      finishReason,
      stopReason: request.stopReason,
      prefill: {
        numPromptTokens: request.numPromptTokens,
        numCachedTokens: Math.max(request.numCachedTokens, 0),
        numPreemptions: request.numPreemptions,
      },
      routedExperts: rows,
    };
  }

  /** An ended request's blocks become free, unless a load still writes to them or somebody is going to read them. */
  #giveUpBlocks(request: Request, finishReason: FinishReason): void {
    const { handovers } = this;
    if (handovers !== null) {
      handovers.loaded.delete(request);
      if (request.status === RequestStatus.waitingForRemoteKvs) return;
      const isComplete = finishReason === 'stop' || finishReason === 'length';
      if (isComplete && request.blockIds.length > 0 && handovers.connector.keepsBlocks(request, finishReason)) {
        handovers.kept.set(request.index, request);
        return;
      }
    }
    this.kv.free(request);
  }

  #dropFinishedFromRunning(): void {
    const running = this.#running;
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
}
