/** Drives an engine core in real time: its steps go to an executor, its outputs to a listener. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { KvLoadOutcome } from '../contract/kv-connector.ts';
import type { EngineRequest } from '../contract/request.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import type { EngineCore } from '../engine/engine-core.ts';
import type { Executor } from './executor.ts';
import { BatchQueue, type BatchedEngine } from './pipeline/batch-queue.ts';

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
  /** A step goes to the executor. */
  onBegin?: (step: SchedulerOutput) => void;
  onStep?: (timing: StepTiming) => void;
  /** Starts a new executor after the loss of a worker; absent = a loss is final. */
  restart?: (loss: RoutedExpertsError) => Promise<Executor>;
  /** How often `restart` may be called. */
  maxRestarts?: number;
  /** Engines whose passes are run together with this one's: what it owes them; absent or `null` = none. */
  group?: EngineGroup | null;
}>;

/** Other engines, as `EngineMember` tells of them. */
export interface EngineGroup {
  onEvent: () => void;
  readonly numOwed: number;
  readonly isGroupDrained: boolean;
  readonly isGivenUp: boolean;
  begin(): void;
  drain(): void;
  giveUp(): void;
}

type TimedStep = {
  readonly plan: SchedulerOutput;
  /** What `beginStep` took, in ms. */
  readonly planMs: number;
  readonly dispatchedAt: number;
  arrivedAt: number;
  /** The plan is the engine's again when `onStep` is called. */
  readonly numRequests: number;
  readonly numTokens: number;
};

/**
 * Drives the batch queue with promises: what an executor's promise settles with arrives in the queue, and a queue that
 * has nothing to do sleeps until it is woken. `add` and `abort` take effect at once: whenever they run, the engine is
 * between two calls.
 */
export class EngineDriver {
  readonly #options: EngineDriverOptions;
  readonly #queue: BatchQueue<TimedStep>;
  readonly #group: EngineGroup | null;
  #executor: Executor;
  /** An executor outlives the drivers that use it, and keeps what waits for its loss: this, until `run` ends. */
  readonly #watcher: { driver: EngineDriver | null } = { driver: this };
  #wake: (() => void) | null = null;
  #lastOutputAt = 0;

  constructor(options: EngineDriverOptions) {
    this.#options = options;
    const { queueDepth, restart, maxRestarts = 0 } = options;
    this.#queue = new BatchQueue({
      engine: timedEngine(options.engine),
      queueDepth,
      maxRestarts: restart === undefined ? 0 : maxRestarts,
    });
    this.#executor = options.executor;
    this.#group = options.group ?? null;
    if (this.#group !== null) this.#group.onEvent = () => this.#wakeUp();
    this.#watch();
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

  /** See `EngineCore.finishLoad`. */
  finishLoad(loadId: number, outcome: KvLoadOutcome): void {
    for (const output of this.#options.engine.finishLoad(loadId, outcome)) this.#options.onOutput(output);
    this.#wakeUp();
  }

  /** See `EngineCore.releaseBlocks`. */
  releaseBlocks(requestIndex: number): void {
    this.#options.engine.releaseBlocks(requestIndex);
    this.#wakeUp();
  }

  /** See `LiveRequests.resetPrefixCache`. */
  resetPrefixCache(resetRunning: boolean): boolean {
    const isReset = this.#options.engine.resetPrefixCache({ resetRunning });
    this.#wakeUp();
    return isReset;
  }

  /** See `BatchQueue.pause`. */
  pause(): void {
    this.#queue.pause();
  }

  resume(): void {
    this.#queue.resume();
    this.#wakeUp();
  }

  /** Lets `run` return once nothing is left to do. */
  stop(): void {
    this.#queue.stop();
    this.#wakeUp();
  }

  /**
   * Runs until `stop` was called and the engine is drained. Rejects when a worker is lost for good: every request has
   * then been handed out with finish reason `error`.
   */
  async run(): Promise<void> {
    try {
      await this.#run();
    } finally {
      this.#watcher.driver = null;
    }
  }

  async #run(): Promise<void> {
    const queue = this.#queue;
    for (;;) {
      const { state } = queue;
      switch (state) {
        case 'running':
          await this.#step();
          break;
        case 'lost':
          await this.#executor.shutdown();
          this.#handOut(queue.workersGone());
          break;
        case 'restarting':
          await this.#restart(queue.loss!);
          break;
        case 'stopped':
          if (this.#group !== null) await this.#standBy(this.#group);
          return;
        case 'failed':
          this.#group?.giveUp();
          throw queue.failure;
        default:
          state satisfies never;
      }
    }
  }

  /** Takes in the oldest output, or waits for news. */
  async #step(): Promise<void> {
    const queue = this.#queue;
    try {
      this.#fill();
      if (queue.canFinish) {
        this.#finish();
        this.#fill();
        // A message port hands out messages for as long as there are any, up to a thousand: without a turn of the event
        // loop a worker that replies faster than its outputs are handled keeps sockets and timers waiting.
        await nextTurn();
      } else if (queue.state === 'running') await new Promise<void>((resolve) => (this.#wake = resolve));
    } catch (error) {
      queue.lose(error);
    }
  }

  #fill(): void {
    for (let step = this.#queue.begin(); step !== null; step = this.#queue.begin()) {
      this.#options.onBegin?.(step.plan);
      if (step.numRequests > 0) this.#group?.begin();
      void this.#execute(step);
    }
    this.#runDummies();
  }

  /** An engine that has nothing to run runs the passes of the others. */
  #runDummies(): void {
    if (this.#group === null || this.#queue.numInFlight > 0) return;
    while (this.#group.numOwed > 0) {
      this.#group.begin();
      void this.#executeDummy();
    }
  }

  async #executeDummy(): Promise<void> {
    try {
      await this.#executor.executeDummy!();
    } catch (error) {
      this.#queue.lose(error);
    }
    this.#wakeUp();
  }

  /** Drained: until all engines of the group are. */
  async #standBy(group: EngineGroup): Promise<void> {
    group.drain();
    for (;;) {
      const { state, failure } = this.#queue;
      if (state !== 'stopped') throw failure;
      if (group.isGivenUp) throw RoutedExpertsError.of('ENGINE_DEAD', 'the ranks of its group stand still');
      this.#runDummies();
      if (group.isGroupDrained) return;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async #execute(step: TimedStep): Promise<void> {
    try {
      const output = await this.#executor.execute(step.plan);
      step.arrivedAt = performance.now();
      this.#queue.arrived(step, output);
    } catch (error) {
      this.#queue.notArrived(step, error);
    }
    this.#wakeUp();
  }

  #finish(): void {
    const startedAt = performance.now();
    const finished = this.#queue.finish();
    if (finished === null) return;
    const finishMs = performance.now() - startedAt;
    const { step, output, outputs } = finished;
    this.#executor.recycle(output);
    this.#handOut(outputs);
    this.#options.onStep?.({
      numRequests: step.numRequests,
      numTokens: step.numTokens,
      stepMs: step.arrivedAt - Math.max(step.dispatchedAt, this.#lastOutputAt),
      schedulerMs: step.planMs + finishMs,
    });
    this.#lastOutputAt = step.arrivedAt;
  }

  async #restart(loss: RoutedExpertsError): Promise<void> {
    try {
      this.#executor = await this.#options.restart!(loss);
    } catch (error) {
      this.#handOut(this.#queue.notRestarted(error));
      return;
    }
    this.#watch();
    this.#queue.restarted();
  }

  /** An executor that is idle has no step whose rejection could tell of a loss. */
  #watch(): void {
    const [executor, watcher] = [this.#executor, this.#watcher];
    void executor.lost.then((loss) => {
      const { driver } = watcher;
      if (driver !== null) driver.#onLost(executor, loss);
    });
  }

  #onLost(executor: Executor, loss: RoutedExpertsError): void {
    if (executor !== this.#executor) return;
    this.#queue.lose(loss);
    this.#wakeUp();
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

function timedEngine(engine: EngineCore): BatchedEngine<TimedStep> {
  return {
    get isIdle() {
      return engine.isIdle;
    },
    get requestIds() {
      return engine.requestIds;
    },
    beginStep: () => {
      const startedAt = performance.now();
      const plan = engine.beginStep();
      if (plan === null) return null;
      const { numRequests, totalNumScheduledTokens: numTokens } = plan;
      const dispatchedAt = performance.now();
      return { plan, planMs: dispatchedAt - startedAt, dispatchedAt, arrivedAt: 0, numRequests, numTokens };
    },
    finishStep: (output) => engine.finishStep(output),
    onWorkersLost: () => engine.onWorkersLost(),
    failAll: () => engine.failAll(),
  };
}
