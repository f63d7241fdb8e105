/**
 * Decides, step by step, which tokens of which requests the workers compute next, and takes in what they answer. Its
 * decisions are those of `vllm/v1/core/sched/scheduler.py` and `async_scheduler.py`, one for one.
 *
 * There is no prefill and no decode phase: each request has tokens that are known and tokens that are computed, and
 * every step lets the second catch up with the first within the step's token budget.
 *
 *     live-requests.ts        where each request stands, and what it holds
 *     kv-cache-manager.ts     its blocks
 *     scheduled-step.ts       a step between `schedule` and `update`
 */

import type { CaptureEngineHalf } from '../contract/capture.ts';
import type { EngineConfig } from '../contract/config.ts';
import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { KvConnector, KvLoadOutcome } from '../contract/kv-connector.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { CaptureRequest } from '../contract/request.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import { PLACEHOLDER_TOKEN, RequestKind } from '../contract/scheduler-output.ts';
import { fastBlockHasher, type BlockHasher } from './kv/block-hash.ts';
import { NO_HITS, type KVCacheManager } from './kv/kv-cache-manager.ts';
import type { KvHandovers } from './kv-handovers.ts';
import { LiveRequests } from './live-requests.ts';
import { PrefixLookup } from './kv/prefix-lookup.ts';
import { RequestStatus, type Request } from './request.ts';
import { ScheduledStep } from './scheduled-step.ts';
import { checkStop } from './stop-check.ts';
import { WorkerOrder } from './worker-order.ts';

export class Scheduler {
  readonly config: EngineConfig;
  readonly requests: LiveRequests;
  readonly kv: KVCacheManager;
  /** Since the start. */
  numScheduledTokens = 0;
  /** Requests that were taken out of the step that was being planned again, since the start. */
  numWithdrawals = 0;
  readonly prefixes: PrefixLookup;

  readonly #capture: CaptureEngineHalf | null;
  #nextStepId = 0;
  /** A running request of the step being scheduled was in the middle of its prompt. */
  #prefillScheduled = false;
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
    this.requests = new LiveRequests(config, capture, hasher, connector);
    this.kv = this.requests.kv;
    this.prefixes = new PrefixLookup(config, this.kv, capture);
    this.#capture = capture;
    this.#live = (requestIndex) => {
      const place = this.#order.placeOf(requestIndex);
      if (place < 0) return null;
      const request = this.#updatingStep!.requests[place]!;
      if (request.status === RequestStatus.finished) return null;
      return request.numStaleOutputTokens > 0 && request.dropStaleOutput ? null : request;
    };
  }

  get numStepsInFlight(): number {
    return this.#inFlight.length;
  }

  /** Something to schedule or to tell the workers may be left. */
  get hasWork(): boolean {
    const { running, waiting, preemptedIndices, finishedIndices } = this.requests;
    return running.length + waiting.length + preemptedIndices.length + finishedIndices.length > 0;
  }

  /** Takes in a request, which must be valid and able to fit the pool alone. */
  add(request: Request): void {
    this.requests.add(request);
  }

  /**
   * Plans the next step and counts its tokens as computed. Steps may be planned before the outputs of earlier ones have
   * arrived. The plan can be empty. It stays valid until `update` takes in its output.
   */
  schedule(): SchedulerOutput {
    const step = this.#spareSteps.pop() ?? new ScheduledStep();
    step.begin(this.#nextStepId);
    this.#nextStepId += 1;
    const { numPreemptions } = this.requests;
    let budget = this.#scheduleRunning(step);
    if (this.requests.numPreemptions === numPreemptions && budget > 0) budget = this.#scheduleWaiting(step, budget);
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
    const { config, requests } = this;
    const { running, handovers } = requests;
    const { maxModelLen, longPrefillTokenThreshold, numSpeculativeTokens } = config;
    const { stepId } = step.output;
    let budget = config.maxNumBatchedTokens;
    let next = 0;
    this.#prefillScheduled = false;
    while (next < running.length && budget > 0) {
      const request = running[next]!;
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
      while (!this.kv.allocateSlots(request, numNew, numSpeculativeTokens)) {
        // Who runs alone would preempt itself, and again, for as long as loaded requests that cannot run hold the
        // blocks it needs.
        if (running.length === 1 && handovers !== null && handovers.dropOneFor(request)) continue;
        const at = requests.victim();
        const victim = running[at]!;
        let uncomputed = NO_HITS;
        if (victim.scheduledStepId === stepId) {
          step.withdraw(victim);
          this.numWithdrawals += 1;
          victim.scheduledStepId = -1;
          budget += victim.stepNumTokens;
          uncomputed = this.kv.uncomputedBlocks(victim);
        }
        running.splice(at, 1);
        if (at < next) next -= 1;
        requests.preempt(victim, false);
        // Its place in the free list stays that of a cached block, as in vLLM, where it also keeps its hash: a later
        // hit would attend to KV that nobody computed (L9).
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
  #scheduleWaiting(step: ScheduledStep, leftBudget: number): number {
    const { config, requests } = this;
    const isDecodeOnly = step.count > 0 && !this.#prefillScheduled;
    const { running, waiting, handovers } = requests;
    const { longPrefillTokenThreshold, numSpeculativeTokens } = config;
    let budget = leftBudget;
    while (budget > 0 && running.length < config.maxNumSeqs) {
      const request = waiting.peek();
      if (request === null) break;
      // Preempted with outputs on their way: resumed before they have arrived, it could sample a token a second time.
      if (request.numStaleOutputTokens > 0 && !request.dropStaleOutput) {
        waiting.hold(request);
        continue;
      }
      // KV that came from elsewhere stands in the request's own blocks, and what is cached of its prefix too.
      const isLoaded = request.blockIds.length > 0;
      const hits = isLoaded ? NO_HITS : this.prefixes.find(request);
      const numComputed = isLoaded ? request.numComputedTokens : hits.length * config.blockSize;
      if (handovers !== null && !isLoaded && handovers.canLoad(request, numComputed)) {
        if (!this.#beginLoad(handovers, request, hits)) break;
        continue;
      }
      let numNew = request.numTokens - numComputed;
      // A request that needs one token joins a batch of decodes in their shape, with drafts that stand for nothing and
      // are rejected. It waits rather than break the shape, which only the threshold narrows.
      const isPadded = numNew === 1 && isDecodeOnly && numSpeculativeTokens > 0;
      if (isPadded) {
        numNew += numSpeculativeTokens;
        if (numNew > budget || numComputed + numNew > config.maxModelLen) break;
      }
      if (longPrefillTokenThreshold > 0 && numNew > longPrefillTokenThreshold) numNew = longPrefillTokenThreshold;
      const numPadding = isPadded ? numNew - 1 : 0;
      if (numNew > budget) {
        if (!config.enableChunkedPrefill) break;
        numNew = budget;
      }
      const reserveTokens = requests.tokensToReserve(request);
      const admission = { hits, reserveTokens, reserveBlocks: isLoaded ? 0 : this.#blocksToSpare };
      if (!this.kv.allocateSlots(request, numNew, numSpeculativeTokens, admission)) {
        if (handovers !== null && running.length === 0 && handovers.dropOneFor(request)) continue;
        break;
      }

      request.scheduledStepId = step.output.stepId;
      request.stepKind = request.status === RequestStatus.preempted ? RequestKind.resumed : RequestKind.new;
      requests.admit(request);
      request.numComputedTokens = numComputed;
      request.stepNumTokens = numNew;
      request.stepNumDrafts = numPadding;
      if (numPadding > 0) request.setDraftPlaceholders(numPadding, PLACEHOLDER_TOKEN);
      request.numDraftTokens = 0;
      request.stepFirstNewBlock = 0;
      if (request.numCachedTokens < 0) request.numCachedTokens = numComputed;
      request.externalTokens = 0;
      if (isLoaded) handovers!.loaded.delete(request);
      else this.prefixes.take(request, hits.length);
      step.add(request);
      budget -= numNew;
    }
    waiting.returnHeld();
    return budget;
  }

  /**
   * Blocks that an admission leaves to the requests that run. Without any it leaves none, or a large request could
   * never run.
   */
  get #blocksToSpare(): number {
    return this.requests.running.length > 0 ? this.kv.watermarkBlocks : 0;
  }

  /**
   * The request gets the blocks that its KV is loaded into, and leaves the queue until it has come. `false`: there are
   * too few.
   */
  #beginLoad(handovers: KvHandovers, request: Request, hits: readonly number[]): boolean {
    const { config, kv } = this;
    const { running, waiting } = this.requests;
    const reserveTokens = this.requests.tokensToReserve(request);
    const admission = { hits, reserveTokens, reserveBlocks: this.#blocksToSpare };
    if (!kv.takeBlocks(request, request.externalTokens, admission)) {
      return running.length === 0 && handovers.dropOneFor(request);
    }
    waiting.remove(request);
    this.prefixes.take(request, hits.length);
    handovers.beginLoad(request, hits.length * config.blockSize, config.blockSize);
    return true;
  }

  /** A load has ended, see `KvHandovers.endLoad`. Answers the request's last output if that ends it. */
  finishLoad(loadId: number, outcome: KvLoadOutcome): EngineCoreOutput | null {
    const failed = this.requests.handovers!.endLoad(loadId, outcome);
    return failed === null ? null : this.requests.emit(failed, [], 'error');
  }

  /** Fills the message to the workers and runs the requests' counters ahead to the end of the step. */
  #dispatch(step: ScheduledStep, numTokens: number): void {
    const { asyncScheduling, numSpeculativeTokens } = this.config;
    const { preemptedIndices, finishedIndices } = this.requests;
    this.numScheduledTokens += numTokens;
    step.tell(preemptedIndices, finishedIndices);
    if (preemptedIndices.length > 0) preemptedIndices.length = 0;
    if (finishedIndices.length > 0) finishedIndices.length = 0;
    step.dispatch(numTokens, asyncScheduling);
    if (asyncScheduling && numSpeculativeTokens > 0) {
      // A request that samples in this step has drafts from it. A request that is left out keeps the drafts of the last
      // step that it was in: the device keeps them with its batch slot.
      for (let i = 0; i < step.count; i += 1) {
        if (step.samples[i] === 1) step.requests[i]!.setDraftPlaceholders(numSpeculativeTokens, PLACEHOLDER_TOKEN);
      }
    }
    if (step.wanted.length > 0) this.#capture!.onScheduled?.(step.output, step.wanted, step.wantedPositions);
  }

  /**
   * Takes in the output of the oldest step in flight. Tokens of a request that was preempted meanwhile still count,
   * except after a cache reset; those of an ended one do not. Throws INVARIANT, and changes nothing, if it is not the
   * output of that step.
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
    const { numScheduledTokens, draftOffsets, kinds } = step.output;
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
      const numDrafts = draftOffsets[i + 1]! - draftOffsets[i]!;
      const numAccepted = to - from - 1;
      // A request that joins has padding where others have drafts.
      if (kinds[i] === RequestKind.running) this.requests.speculation.add(numDrafts, numAccepted);
      if (!isStale) request.fallBack(numDrafts - numAccepted, asyncScheduling);
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
      outputs.push(this.requests.emit(request, newTokenIds, finishReason));
    }
    if (someRunningEnded) this.requests.dropFinishedFromRunning();
    if (modelRunnerOutput.drafts !== null) {
      const { tokenIds, offsets } = modelRunnerOutput.drafts;
      for (let i = 0; i < count; i += 1) {
        const at = positions[i]!;
        requests[i]!.setDrafts(tokenIds, offsets[at]!, offsets[at + 1]!, this.config.numSpeculativeTokens);
      }
    }
    this.#order.clear();
    step.end();
    this.#spareSteps.push(step);
    return outputs;
  }

  /**
   * Forgets every cached prefix. With `resetRunning` all running requests are preempted first, and their outputs in
   * flight are thrown away; who has loaded KV and was not admitted yet gives it up. Answers `false`, and nothing has
   * happened, if blocks stay held: by a running request, or, with `resetRunning`, by a load that is under way or for
   * others to read. Ask again once that has ended.
   */
  resetPrefixCache(resetRunning: boolean): boolean {
    return this.requests.resetPrefixCache(resetRunning);
  }

  /**
   * Every step in flight is void and all KV is gone. Requests stay, with the tokens that were delivered, and are
   * computed again.
   */
  onWorkersLost(): void {
    let wasWanted = false;
    for (let step = this.#inFlight.pop(); step !== undefined; step = this.#inFlight.pop()) {
      wasWanted ||= step.wanted.length > 0;
      for (let i = 0; i < step.count; i += 1) step.requests[i]!.forgetInFlight();
      step.end();
      this.#spareSteps.push(step);
    }
    const { requests } = this;
    requests.handovers?.onWorkersLost();
    requests.resetPrefixCache(true);
    if (wasWanted) this.#capture!.onStepsLost?.();
    // New workers have nothing to forget.
    requests.preemptedIndices.length = 0;
    requests.finishedIndices.length = 0;
  }
}
