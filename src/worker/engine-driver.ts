/** Drives an engine core in real time: begins steps, awaits an executor, finishes steps, hands outputs out. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import type { RoutedExpertsError } from '../contract/errors.ts';
import type { KvLoadOutcome } from '../contract/kv-connector.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { EngineRequest } from '../contract/request.ts';
import type { EngineCore } from '../engine/engine-core.ts';
import type { Executor } from './executor.ts';
import { isLoss } from './loss.ts';

/** What the driver measured of one step; times in ms. */
export type StepTiming = Readonly<{
  numRequests: number;
  numTokens: number;
  /** Until the output arrived, from the later of its dispatch and the arrival of the output before it. */
  stepMs: number;
  /** `beginStep` and `finishStep` together. */
  schedulerMs: number;
}>;

export type EngineDriverOptions = Readonly<{
  engine: EngineCore;
  executor: Executor;
  /** Steps in flight: 1 = synchronous, 2 and more = asynchronous scheduling. */
  queueDepth: number;
  onOutput: (output: EngineCoreOutput) => void;
  onStep?: (timing: StepTiming) => void;
  /** Starts a new executor after the loss of a worker; absent = a loss is final. */
  restart?: (loss: RoutedExpertsError) => Promise<Executor>;
  /** How often `restart` may be called. */
  maxRestarts?: number;
}>;

type StepInFlight = {
  readonly result: Promise<ModelRunnerOutput>;
  readonly dispatchedAt: number;
  readonly numRequests: number;
  readonly numTokens: number;
  schedulerMs: number;
};

/**
 * The batch queue of vLLM's `step_with_batch_queue`: schedule and dispatch while fewer than `queueDepth` steps are in
 * flight, else wait for the oldest output. `add` and `abort` take effect at once: whenever they run, the engine is
 * between two calls.
 */
export class EngineDriver {
  readonly #options: EngineDriverOptions;
  readonly #inFlight: StepInFlight[] = [];
  #executor: Executor;
  #restartsLeft: number;
  /** Of a worker, and not yet recovered from. */
  #loss: RoutedExpertsError | null = null;
  #wake: (() => void) | null = null;
  #stopping = false;
  #lastOutputAt = 0;

  constructor(options: EngineDriverOptions) {
    this.#options = options;
    this.#executor = options.executor;
    this.#watch();
    this.#restartsLeft = options.maxRestarts ?? 0;
  }

  get executor(): Executor {
    return this.#executor;
  }

  /** Throws what `EngineCore.addRequest` throws; the engine is untouched then. */
  add(request: EngineRequest): void {
    this.#options.engine.addRequest(request);
    this.#wakeUp();
  }

  /** Ends requests at once; their last outputs are handed out before it returns. Unknown ids are ignored. */
  abort(requestIds: readonly string[]): void {
    for (const output of this.#options.engine.abort(requestIds)) this.#options.onOutput(output);
    this.#wakeUp();
  }

  /** See `Scheduler.finishLoad`. */
  finishLoad(loadId: number, outcome: KvLoadOutcome): void {
    for (const output of this.#options.engine.finishLoad(loadId, outcome)) this.#options.onOutput(output);
    this.#wakeUp();
  }

  /** See `Scheduler.releaseBlocks`. */
  releaseBlocks(requestIndex: number): void {
    this.#options.engine.releaseBlocks(requestIndex);
    this.#wakeUp();
  }

  /** See `Scheduler.resetPrefixCache`. */
  resetPrefixCache(resetRunning: boolean): boolean {
    const isReset = this.#options.engine.resetPrefixCache({ resetRunning });
    this.#wakeUp();
    return isReset;
  }

  /** Lets `run` return once nothing is left to do. */
  stop(): void {
    this.#stopping = true;
    this.#wakeUp();
  }

  /**
   * Runs until `stop` was called and the engine is drained. Rejects when a worker is lost for good: every request has
   * then been handed out with finish reason `error`.
   */
  async run(): Promise<void> {
    for (;;) {
      try {
        if (this.#loss !== null) throw this.#loss;
        this.#fill();
        const oldest = this.#inFlight[0];
        if (oldest !== undefined) {
          await this.#finish(oldest);
          this.#fill();
          // A message port hands out messages for as long as there are any, up to a thousand: without a turn of the
          // event loop a worker that answers faster than its outputs are handled keeps sockets and timers waiting.
          await nextTurn();
        } else if (this.#stopping && this.#options.engine.isIdle) return;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      } catch (error) {
        await this.#recover(error);
      }
    }
  }

  #fill(): void {
    while (this.#inFlight.length < this.#options.queueDepth) {
      const startedAt = performance.now();
      const step = this.#options.engine.beginStep();
      if (step === null) return;
      const dispatchedAt = performance.now();
      const result = this.#executor.execute(step);
      // A rejection is met when its turn comes; until then it must not count as unhandled.
      result.catch(() => {});
      this.#inFlight.push({
        result,
        dispatchedAt,
        numRequests: step.numRequests,
        numTokens: step.totalNumScheduledTokens,
        schedulerMs: dispatchedAt - startedAt,
      });
    }
  }

  async #finish(step: StepInFlight): Promise<void> {
    const output = await step.result;
    const arrivedAt = performance.now();
    this.#inFlight.shift();
    const outputs = this.#options.engine.finishStep(output);
    const finishedAt = performance.now();
    this.#executor.recycle(output);
    this.#handOut(outputs);
    this.#options.onStep?.({
      numRequests: step.numRequests,
      numTokens: step.numTokens,
      stepMs: arrivedAt - Math.max(step.dispatchedAt, this.#lastOutputAt),
      schedulerMs: step.schedulerMs + (finishedAt - arrivedAt),
    });
    this.#lastOutputAt = arrivedAt;
  }

  /**
   * A lost worker takes no request with it: a new one starts without KV, and everything that ran is recomputed (L8).
   */
  async #recover(error: unknown): Promise<void> {
    const { engine } = this.#options;
    this.#inFlight.length = 0;
    await this.#executor.shutdown();
    this.#loss = null;
    const failure = isLoss(error) ? await this.#restart(error) : error;
    if (failure === null) return;
    this.#handOut(engine.abort(engine.requestIds).map((output) => ({ ...output, finishReason: 'error' })));
    // Steps that will never be answered hold buffers of rows (L7).
    engine.onWorkersLost();
    throw failure;
  }

  /**
   * Returns `null` if the engine can go on, else why it cannot. Without requests there is nothing to start new workers
   * for before a stop.
   */
  async #restart(loss: RoutedExpertsError): Promise<unknown> {
    const { engine } = this.#options;
    if (this.#stopping && engine.requestIds.length === 0) {
      engine.onWorkersLost();
      return null;
    }
    let failure: unknown = loss;
    while (this.#options.restart && this.#restartsLeft > 0) {
      this.#restartsLeft--;
      try {
        this.#executor = await this.#options.restart(loss);
        this.#watch();
        engine.onWorkersLost();
        return null;
      } catch (error) {
        failure = error;
      }
    }
    return failure;
  }

  /** An executor that is idle has no step whose rejection could tell of a loss. */
  #watch(): void {
    const executor = this.#executor;
    void executor.lost.then((loss) => {
      if (executor !== this.#executor) return;
      this.#loss = loss;
      this.#wakeUp();
    });
  }

  /**
   * The engine has forgotten a request whose last output it gave: a listener that throws must not cost the others
   * theirs.
   */
  #handOut(outputs: readonly EngineCoreOutput[]): void {
    const failures: unknown[] = [];
    for (const output of outputs) {
      try {
        this.#options.onOutput(output);
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = null;
  }
}
