/**
 * Decides, step by step, which tokens of which requests the workers compute next, and takes in their outputs. Its
 * decisions are those of `vllm/v1/core/sched/scheduler.py` and `async_scheduler.py`, one for one.
 *
 * There is no prefill and no decode phase: a request has known tokens and computed tokens, and every step lets the
 * computed ones catch up with the known ones within the step's token budget.
 *
 *     live-requests.ts           the state of each request, and what it holds
 *     kv/kv-cache-manager.ts     its blocks
 *     scheduled-step.ts          a step between `schedule` and `update`
 */

import type { CaptureEngineHalf } from '../contract/capture.ts';
import type { EngineConfig } from '../contract/config.ts';
import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { CaptureRequest } from '../contract/request.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import { PLACEHOLDER_TOKEN, RequestKind } from '../contract/scheduler-output.ts';
import { NO_HITS, type KVCacheManager } from './kv/kv-cache-manager.ts';
import type { KvHandovers } from './kv-handovers.ts';
import type { LiveRequests } from './live-requests.ts';
import { PrefixLookup } from './kv/prefix-lookup.ts';
import { writeNewTokens } from './new-tokens.ts';
import { RequestStatus, type Request } from './request.ts';
import { ScheduledStep } from './scheduled-step.ts';
import { SpeculationCounts } from './speculation-counts.ts';
import { checkStop } from './stop-check.ts';
import { WorkerOrder } from './worker-order.ts';

export class Scheduler {
  readonly config: EngineConfig;
  readonly requests: LiveRequests;
  readonly kv: KVCacheManager;
  /** Since the start. */
  numScheduledTokens = 0;
  /** How often a request was taken out again of the step being planned, since the start. */
  numWithdrawals = 0;
  readonly speculation: SpeculationCounts = new SpeculationCounts();
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

  constructor(requests: LiveRequests) {
    const { config, capture, kv } = requests;
    this.config = config;
    this.requests = requests;
    this.kv = kv;
    this.prefixes = new PrefixLookup(config, kv, capture);
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

  /** Whether there may be something to schedule or to tell the workers. */
  get hasWork(): boolean {
    const { running, waiting, preemptedIndices, finishedIndices } = this.requests;
    return running.length + waiting.length + preemptedIndices.length + finishedIndices.length > 0;
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
    this.requests.handovers?.onPlanned();
    this.#inFlight.push(step);
    return step.output;
  }

  /**
   * Takes back the step planned last, which runs no request and tells the workers nothing. The next one gets its id.
   */
  undoEmptySchedule(): void {
    const step = this.#inFlight.pop()!;
    this.#nextStepId -= 1;
    this.#spareSteps.push(step);
  }

  /** Plans the running requests, in their order. Returns what is left of the token budget. */
  #scheduleRunning(step: ScheduledStep): number {
    const { config, requests } = this;
    const { running, handovers } = requests;
    const { maxModelLen, longPrefillTokenThreshold } = config;
    const { stepId } = step.output;
    let budget = config.maxNumBatchedTokens;
    let next = 0;
    this.#prefillScheduled = false;
    while (next < running.length && budget > 0) {
      const request = running[next]!;
      // Steps in flight are sure to bring the last token: one more would compute nothing of use.
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
      while (!this.kv.allocateSlots(request, numNew)) {
        // A request that runs alone would preempt itself forever while loaded requests hold the blocks it needs, so one
        // of them gives its blocks back.
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
        requests.preempt(victim, { dropStaleOutput: false });
        // An uncomputed block keeps the place of a cached block in the free list, as in vLLM. There it also keeps its
        // hash; here it loses it, since a later hit would attend to KV that was never computed (L9).
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

  /** Plans waiting requests, until one does not fit. Returns what is left of the token budget. */
  #scheduleWaiting(step: ScheduledStep, leftBudget: number): number {
    const { config, requests } = this;
    const isDecodeOnly = step.count > 0 && !this.#prefillScheduled;
    const { running, waiting, handovers } = requests;
    const { longPrefillTokenThreshold, numSpeculativeTokens } = config;
    let budget = leftBudget;
    while (budget > 0 && running.length < config.maxNumSeqs) {
      const request = waiting.peek();
      if (request === null) break;
      // It was preempted with outputs in flight. Resumed before they arrive, it could sample a token a second time.
      if (request.numStaleOutputTokens > 0 && !request.dropStaleOutput) {
        waiting.hold(request);
        continue;
      }
      // A loaded request holds blocks already: the cached ones of its prefix, and those that the load filled.
      const isLoaded = request.blockIds.length > 0;
      const hits = isLoaded ? NO_HITS : this.prefixes.find(request);
      const numComputed = isLoaded ? request.numComputedTokens : hits.length * config.blockSize;
      if (handovers !== null && !isLoaded && handovers.canLoad(request, numComputed)) {
        if (!this.#beginLoad(handovers, request, hits)) break;
        continue;
      }
      let numNew = request.numTokens - numComputed;
      // A request that needs one token joins a batch of decodes in the batch's shape, with padding in place of drafts,
      // which the worker rejects. It waits rather than break the shape, which only the threshold narrows.
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
      if (!this.kv.allocateSlots(request, numNew, admission)) {
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
   * Blocks that an admission leaves to the running requests. If none runs it leaves no block, or a large request could
   * never run.
   */
  get #blocksToSpare(): number {
    return this.requests.running.length > 0 ? this.kv.watermarkBlocks : 0;
  }

  /**
   * The request gets the blocks that its KV is loaded into, and leaves the queue until the load ends. `false`: there
   * are too few blocks.
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

  /** Fills the message to the workers and runs the requests' counters ahead to the end of the step. */
  #dispatch(step: ScheduledStep, numTokens: number): void {
    const { asyncScheduling, numSpeculativeTokens, pipelineParallelSize = 1 } = this.config;
    const { preemptedIndices, finishedIndices } = this.requests;
    this.numScheduledTokens += numTokens;
    step.tell(preemptedIndices, finishedIndices);
    if (preemptedIndices.length > 0) preemptedIndices.length = 0;
    if (finishedIndices.length > 0) finishedIndices.length = 0;
    if (pipelineParallelSize > 1) writeNewTokens(step.output, step.requests, step.count);
    step.dispatch(numTokens, asyncScheduling);
    if (asyncScheduling && numSpeculativeTokens > 0) {
      // A request that samples in this step has drafts from it. A request that is left out of the step keeps its
      // earlier drafts: the device keeps them with its batch slot.
      for (let i = 0; i < step.count; i += 1) {
        if (step.samples[i] === 1) step.requests[i]!.setDraftPlaceholders(numSpeculativeTokens, PLACEHOLDER_TOKEN);
      }
    }
    if (step.wanted.length > 0) this.#capture!.onScheduled?.(step.output, step.wanted, step.wantedPositions);
  }

  /**
   * Takes in the output of the oldest step in flight. Tokens of a request that was preempted meanwhile still count,
   * except after a cache reset; tokens of an ended request do not. Throws INVARIANT, and changes nothing, if it is the
   * output of another step.
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
      // A request that joins the batch has padding in place of drafts.
      if (kinds[i] === RequestKind.running) this.speculation.add(numDrafts, numAccepted);
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
   * The workers died: every step in flight is void and all KV is gone. Requests keep the tokens that were delivered and
   * are computed again.
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
    requests.resetPrefixCache({ resetRunning: true });
    if (wasWanted) this.#capture!.onStepsLost?.();
    // New workers have nothing to forget.
    requests.preemptedIndices.length = 0;
    requests.finishedIndices.length = 0;
  }
}
