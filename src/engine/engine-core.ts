/**
 * The engine core: a state machine without time. A driver calls `beginStep`, has the workers run the step, and hands
 * their output to `finishStep`; `addRequest` and `abort` may come between any two calls. Several steps may be in
 * flight; they are finished in the order in which they were begun. After `vllm/v1/engine/core.py`.
 *
 *     addRequest ─▶ ┌────────────┐ ─▶ beginStep ─▶ SchedulerOutput ─▶ workers
 *     abort ──────▶ │ EngineCore │                                       │
 *                   └────────────┘ ◀─ finishStep ◀─ ModelRunnerOutput ◀──┘
 *
 * It checks requests and knows them by their ids. `LiveRequests` holds their states, `Scheduler` plans their steps.
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../contract/capture.ts';
import type { EngineConfig } from '../contract/config.ts';
import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { KvLoadOutcome } from '../contract/kv-connector.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { EngineRequest } from '../contract/request.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import { validateEngineConfig } from './engine-config.ts';
import { checkIntegrity } from './integrity.ts';
import { LiveRequests, type LiveRequestsOptions } from './live-requests.ts';
import { Request } from './request.ts';
import { Scheduler } from './scheduler.ts';

/** What an engine core holds and has done. */
export type EngineStats = Readonly<{
  /** Waiting requests hold no blocks, unless their KV was loaded; running ones do. */
  numWaiting: number;
  numRunning: number;
  numStepsInFlight: number;
  /** KV blocks; the free and the used ones are the pool without its null block. */
  numFreeBlocks: number;
  numUsedBlocks: number;
  /** Blocks, free or used, that a prefix lookup can find. */
  numCachedBlocks: number;
  /** Totals since the start. */
  numPreemptions: number;
  /** Preemptions of a request that was in the step being planned. */
  numWithdrawals: number;
  numScheduledTokens: number;
  /** Admissions and resumptions, their tokens, and how many of these were found in the prefix cache. */
  numPrefixQueries: number;
  numPrefixQueryTokens: number;
  numPrefixHitTokens: number;
  /** Cached tokens that were computed again, because no cached block has their rows. */
  numPrefixRefusedTokens: number;
  /**
   * Requests that wait for KV from elsewhere (not counted as waiting), blocks kept for other engines to read, and
   * tokens loaded since the start.
   */
  numWaitingForRemoteKvs: number;
  numKeptBlocks: number;
  numExternalTokens: number;
  /** Verified drafts, their tokens, and how many of these were right, since the start. See `SpeculationCounts`. */
  numDrafts: number;
  numDraftTokens: number;
  numAcceptedTokens: number;
  /** What the capture design holds, or `null` without one. */
  capture: CaptureLiveCounts | null;
}>;

/** The last output of a request whose hook has failed. */
const failed = (output: EngineCoreOutput, failure: RoutedExpertsError): EngineCoreOutput => ({
  ...output,
  finishReason: 'error',
  stopReason: null,
  routedExperts: null,
  failure,
});

/** One engine: synchronous, deterministic, without a thread or a device of its own. */
export class EngineCore {
  readonly config: EngineConfig;
  readonly #requests: LiveRequests;
  readonly #scheduler: Scheduler;
  readonly #byId = new Map<string, Request>();
  #nextIndex = 0;

  /**
   * @param capture the engine half of a capture design; `null` is design `off`
   * @throws BAD_VALUE for the first field of `config` that is out of its range
   */
  constructor(config: EngineConfig, capture: CaptureEngineHalf | null, options: LiveRequestsOptions = {}) {
    validateEngineConfig(config);
    if (!config.enableChunkedPrefill && config.maxNumBatchedTokens < config.maxModelLen) {
      throw RoutedExpertsError.of(
        'BAD_VALUE',
        'maxNumBatchedTokens',
        config.maxNumBatchedTokens,
        `at least maxModelLen (${config.maxModelLen}), or enable chunked prefill: a longer prompt could never run`,
      );
    }
    this.config = config;
    this.#requests = new LiveRequests(config, capture, options);
    this.#scheduler = new Scheduler(this.#requests);
  }

  /**
   * No request is live, no step or load is in flight, and the workers know it. Blocks may still be kept for other
   * engines.
   */
  get isIdle(): boolean {
    const { hasWork, numStepsInFlight } = this.#scheduler;
    const { handovers } = this.#requests;
    return !hasWork && numStepsInFlight === 0 && (handovers === null || handovers.loading.size === 0);
  }

  /** The ids of the live requests. */
  get requestIds(): readonly string[] {
    return [...this.#byId.keys()];
  }

  /**
   * Takes in a request. Its prompt is copied.
   *
   * @throws DUPLICATE_REQUEST, EMPTY_PROMPT, PROMPT_TOO_LONG, EXCEEDS_POOL, PROMPT_START_OUT_OF_RANGE, BAD_MAX_TOKENS,
   * BAD_VALUE or DESIGN_FAILED; the engine is then as it was
   */
  addRequest(request: EngineRequest): void {
    this.#check(request);
    const admitted = new Request(this.#nextIndex, request);
    this.#requests.add(admitted);
    this.#nextIndex += 1;
    this.#byId.set(request.requestId, admitted);
  }

  /**
   * Ends requests at once, at any moment: waiting, running, or with steps in flight. Returns one output for each live
   * request; an unknown or ended id is no error.
   */
  abort(requestIds: Iterable<string>): EngineCoreOutput[] {
    const outputs: EngineCoreOutput[] = [];
    for (const id of requestIds) {
      const request = this.#byId.get(id);
      if (request === undefined) continue;
      this.#byId.delete(id);
      outputs.push(this.#requests.abort(request));
    }
    return this.#withFailures(outputs);
  }

  /** Ends every request with finish reason `error`, as `abort` does with its own: nothing will run any more. */
  failAll(): EngineCoreOutput[] {
    return this.abort(this.requestIds).map((output) => ({ ...output, finishReason: 'error' }));
  }

  /**
   * Plans the next step, or returns `null` if there is nothing to run and nothing to tell the workers. With steps in
   * flight `null` means that only an output can bring work. The plan is reused after its `finishStep`.
   */
  beginStep(): SchedulerOutput | null {
    if (!this.#scheduler.hasWork) return null;
    const step = this.#scheduler.schedule();
    if (step.numRequests > 0 || step.preemptedIndices.length > 0 || step.finishedIndices.length > 0) return step;
    this.#scheduler.undoEmptySchedule();
    return null;
  }

  /** Takes in the workers' output of the oldest step in flight. */
  finishStep(output: ModelRunnerOutput): EngineCoreOutput[] {
    const outputs = this.#scheduler.update(output);
    for (const { requestId, finishReason } of outputs) if (finishReason !== null) this.#byId.delete(requestId);
    return this.#withFailures(outputs);
  }

  /** A load has ended. See `KvHandovers.endLoad`. */
  finishLoad(loadId: number, outcome: KvLoadOutcome): EngineCoreOutput[] {
    const output = this.#requests.finishLoad(loadId, outcome);
    if (output === null) return [];
    this.#byId.delete(output.requestId);
    return this.#withFailures([output]);
  }

  /** See `KvHandovers.release`. */
  releaseBlocks(requestIndex: number): void {
    this.#requests.handovers!.release(requestIndex);
  }

  /** See `LiveRequests.resetPrefixCache`. */
  resetPrefixCache(options: Readonly<{ resetRunning: boolean }>): boolean {
    const isReset = this.#requests.resetPrefixCache(options);
    if (isReset) this.#requests.handovers?.onCacheReset();
    return isReset;
  }

  /**
   * The workers died, and with them every step in flight and all KV. Every running request is preempted and computed
   * again on new workers; nothing is delivered twice. The driver must not finish the steps that were in flight.
   */
  onWorkersLost(): void {
    this.#scheduler.onWorkersLost();
  }

  stats(): EngineStats {
    const scheduler = this.#scheduler;
    const requests = this.#requests;
    const { pool } = requests.kv;
    return {
      numWaiting: requests.waiting.length,
      numRunning: requests.running.length,
      numStepsInFlight: scheduler.numStepsInFlight,
      numFreeBlocks: pool.numFree,
      numUsedBlocks: pool.numUsed,
      numCachedBlocks: pool.numCached,
      numPreemptions: requests.numPreemptions,
      numWithdrawals: scheduler.numWithdrawals,
      numScheduledTokens: scheduler.numScheduledTokens,
      numPrefixQueries: scheduler.prefixes.numQueries,
      numPrefixQueryTokens: scheduler.prefixes.numQueryTokens,
      numPrefixHitTokens: scheduler.prefixes.numHitTokens,
      numPrefixRefusedTokens: scheduler.prefixes.numRefusedTokens,
      numWaitingForRemoteKvs: requests.handovers?.numWaiting ?? 0,
      numKeptBlocks: requests.handovers?.numKeptBlocks ?? 0,
      numExternalTokens: requests.handovers?.numExternalTokens ?? 0,
      numDrafts: scheduler.speculation.numDrafts,
      numDraftTokens: scheduler.speculation.numDraftTokens,
      numAcceptedTokens: scheduler.speculation.numAcceptedTokens,
      capture: requests.capture?.liveCounts() ?? null,
    };
  }

  /** Checks what `integrity.ts` says, and that every live request runs or waits. */
  checkIntegrity(): void {
    checkIntegrity(this.#requests);
    const { running, waiting, handovers } = this.#requests;
    const counted = running.length + waiting.length + (handovers?.numWaiting ?? 0);
    if (counted === this.#byId.size) return;
    throw RoutedExpertsError.of('INVARIANT', `${this.#byId.size} requests are alive, ${counted} run or wait`);
  }

  /**
   * A request whose hook failed ends here with `error`: its last output is among `outputs`, or it ends now. A hook may
   * have failed in any call since the last outputs.
   */
  #withFailures(outputs: EngineCoreOutput[]): EngineCoreOutput[] {
    const failures = this.#requests.capture?.takeFailures?.() ?? null;
    if (failures === null) return outputs;
    const all = outputs.map((output) => {
      const failure = output.finishReason === null ? undefined : failures.get(output.requestId);
      return failure === undefined ? output : failed(output, failure);
    });
    for (const [id, failure] of failures) {
      const request = this.#byId.get(id);
      if (request === undefined) continue;
      this.#byId.delete(id);
      all.push(failed(this.#requests.abort(request), failure));
    }
    return all;
  }

  #check(request: EngineRequest): void {
    const { requestId: id, sampling } = request;
    const { blockSize, maxModelLen, numSpeculativeTokens, numBlocks } = this.config;
    const promptLength = request.promptTokenIds.length;
    if (this.#byId.has(id)) throw RoutedExpertsError.of('DUPLICATE_REQUEST', id);
    if (promptLength === 0) throw RoutedExpertsError.of('EMPTY_PROMPT', id);
    const { maxTokens, minTokens, routedExpertsPromptStart: start } = sampling;
    if (!Number.isSafeInteger(maxTokens) || maxTokens < 1) throw RoutedExpertsError.of('BAD_MAX_TOKENS', id, maxTokens);
    if (!Number.isInteger(minTokens) || minTokens < 0 || minTokens > maxTokens) {
      throw RoutedExpertsError.of(
        'BAD_VALUE',
        `request "${id}": minTokens`,
        minTokens,
        `a whole number in [0, maxTokens]`,
      );
    }
    if (!Number.isInteger(start) || start < 0 || start >= promptLength) {
      throw RoutedExpertsError.of('PROMPT_START_OUT_OF_RANGE', id, start, promptLength);
    }
    // A NaN would make the order of the waiting queue depend on its history.
    for (const [name, value] of [
      ['priority', request.priority],
      ['arrivalTime', request.arrivalTime],
    ] as const) {
      if (!Number.isFinite(value))
        throw RoutedExpertsError.of('BAD_VALUE', `request "${id}": ${name}`, value, 'a number');
    }
    if (promptLength >= maxModelLen) throw RoutedExpertsError.of('PROMPT_TOO_LONG', id, promptLength, maxModelLen);
    // The last token is never an input. A step keeps room for the drafts of the step after it. A request that runs
    // alone and has no room for its own drafts as well is preempted, and resumes without drafts.
    const mostTokens = Math.min(promptLength + maxTokens - 1 + numSpeculativeTokens, maxModelLen);
    const needed = Math.ceil(mostTokens / blockSize);
    if (needed > numBlocks - 1) throw RoutedExpertsError.of('EXCEEDS_POOL', id, needed, numBlocks - 1);
  }
}
