/**
 * The steps between an engine and its workers, as a state machine: which step begins, which output is taken in, and
 * what becomes of a loss. It has no promise, no clock and no I/O: `EngineDriver` drives it with promises, the
 * simulator's storm with an event heap. After vLLM's `step_with_batch_queue`.
 *
 *     begin ─▶ step ─▶ workers ─▶ arrived ─▶ finish: the oldest step alone, so that outputs are taken in in order
 *
 *     running ──lose──▶ lost ──workersGone──▶ restarting ──restarted──▶ running
 *        └─stop, drained─▶ stopped    └─no restart left─▶ failed ◀─┘ notRestarted
 */

import type { EngineCoreOutput } from '../../contract/engine-core-output.ts';
import type { RoutedExpertsError } from '../../contract/errors.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import { isLoss } from './loss.ts';

/** The engine as the queue sees it: `EngineCore`, or what watches one. `Step` is what the workers are handed. */
export interface BatchedEngine<Step> {
  /** No request is alive, and the workers have nothing to be told. */
  readonly isIdle: boolean;
  /** Ids of the requests alive. */
  readonly requestIds: readonly string[];
  /** Plans a step. `null`: there is nothing to run. */
  beginStep(): Step | null;
  /** Takes in the output of the oldest step that was begun. */
  finishStep(output: ModelRunnerOutput): readonly EngineCoreOutput[];
  /** Every step in flight is void, and so is all KV. */
  onWorkersLost(): void;
  /** Ends every request with finish reason `error`, and returns their last outputs. */
  failAll(): readonly EngineCoreOutput[];
}

export type BatchQueueOptions<Step> = Readonly<{
  engine: BatchedEngine<Step>;
  /** Steps in flight: 1 = synchronous, 2 and more = asynchronous scheduling. */
  queueDepth: number;
  /** How often workers may be started again. */
  maxRestarts: number;
}>;

/** `stopped` and `failed` are ends. */
export type BatchQueueState = 'running' | 'lost' | 'restarting' | 'stopped' | 'failed';

/** What came of a step: its output, or why there is none. */
type Arrival = Readonly<{ output: ModelRunnerOutput } | { error: unknown }>;

type StepInFlight<Step> = { readonly step: Step; arrival: Arrival | null };

export type FinishedStep<Step> = Readonly<{
  step: Step;
  /** What the workers returned. */
  output: ModelRunnerOutput;
  /** What comes of it for the requests. */
  outputs: readonly EngineCoreOutput[];
}>;

const NOTHING: readonly EngineCoreOutput[] = [];

export class BatchQueue<Step> {
  readonly #engine: BatchedEngine<Step>;
  readonly #queueDepth: number;
  /** Oldest first. */
  readonly #inFlight: StepInFlight<Step>[] = [];
  #state: BatchQueueState = 'running';
  #failure: unknown = null;
  #loss: RoutedExpertsError | null = null;
  #restartsLeft: number;
  #isStopping = false;
  #isPaused = false;

  constructor({ engine, queueDepth, maxRestarts }: BatchQueueOptions<Step>) {
    this.#engine = engine;
    this.#queueDepth = queueDepth;
    this.#restartsLeft = maxRestarts;
  }

  get state(): BatchQueueState {
    const isDrained = this.#isStopping && this.#inFlight.length === 0 && this.#engine.isIdle;
    return this.#state === 'running' && isDrained ? 'stopped' : this.#state;
  }

  /** Why the queue has `failed`. */
  get failure(): unknown {
    return this.#failure;
  }

  /** What the workers were last lost by. */
  get loss(): RoutedExpertsError | null {
    return this.#loss;
  }

  get restartsLeft(): number {
    return this.#restartsLeft;
  }

  get numInFlight(): number {
    return this.#inFlight.length;
  }

  /** There is room for a step; whether there is anything to run only `begin` tells. */
  get canBegin(): boolean {
    return this.#state === 'running' && this.#inFlight.length < this.#queueDepth && !this.#isPaused;
  }

  /** The oldest step in flight has arrived. */
  get canFinish(): boolean {
    return this.#inFlight.length > 0 && this.#inFlight[0]!.arrival !== null;
  }

  /** Begins a step, which is to be handed to the workers. `null`: there is no room, or nothing to run. */
  begin(): Step | null {
    if (!this.canBegin) return null;
    const step = this.#engine.beginStep();
    if (step !== null) this.#inFlight.push({ step, arrival: null });
    return step;
  }

  /** The workers have run a step. A step that is void is ignored. */
  arrived(step: Step, output: ModelRunnerOutput): void {
    this.#note(step, { output });
  }

  /** A step has no output. That is a loss or a failure when the turn of the step comes. */
  notArrived(step: Step, error: unknown): void {
    this.#note(step, { error });
  }

  /** Takes in the output of the oldest step. `null`: it has not arrived, or never will and the workers are lost. */
  finish(): FinishedStep<Step> | null {
    const oldest = this.#inFlight[0];
    if (oldest === undefined || oldest.arrival === null) return null;
    const { step, arrival } = oldest;
    if ('error' in arrival) {
      this.lose(arrival.error);
      return null;
    }
    this.#inFlight.shift();
    return { step, output: arrival.output, outputs: this.#engine.finishStep(arrival.output) };
  }

  /**
   * A worker is lost, or something else has gone wrong: every step in flight is void. The workers are to be shut down.
   */
  lose(error: unknown): void {
    if (this.#state !== 'running') return;
    this.#inFlight.length = 0;
    this.#failure = error;
    this.#state = 'lost';
  }

  /**
   * The workers that were lost are shut down. Either new ones are to be started (`restarting`), or every request ends,
   * and their last outputs are returned. A loss takes no request with it as long as there are restarts: new workers
   * start without KV, and everything that ran is computed again (L8). No other failure is mended by new workers.
   */
  workersGone(): readonly EngineCoreOutput[] {
    if (!isLoss(this.#failure)) return this.#fail();
    this.#loss = this.#failure;
    if (!this.#isStopping || this.#engine.requestIds.length > 0) return this.#restartOrFail();
    // Without requests there is nothing to start new workers for before a stop.
    this.#engine.onWorkersLost();
    this.#state = 'stopped';
    return NOTHING;
  }

  /** New workers run. */
  restarted(): void {
    this.#state = 'running';
    this.#engine.onWorkersLost();
  }

  /** New workers could not be started. Either it is to be tried again, or every request ends as in `workersGone`. */
  notRestarted(error: unknown): readonly EngineCoreOutput[] {
    this.#failure = error;
    return this.#restartOrFail();
  }

  /** Steps in flight are finished; no other begins before `resume` or `stop`. Requests may still come and end. */
  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
  }

  /** The end is `stopped`, once nothing is left to do. */
  stop(): void {
    this.#isStopping = true;
    this.#isPaused = false;
  }

  #note(step: Step, arrival: Arrival): void {
    const inFlight = this.#inFlight.find((each) => each.step === step);
    if (inFlight !== undefined) inFlight.arrival = arrival;
  }

  #restartOrFail(): readonly EngineCoreOutput[] {
    if (this.#restartsLeft === 0) return this.#fail();
    this.#restartsLeft -= 1;
    this.#state = 'restarting';
    return NOTHING;
  }

  #fail(): readonly EngineCoreOutput[] {
    this.#state = 'failed';
    const outputs = this.#engine.failAll();
    // Steps without an output hold buffers of rows (L7).
    this.#engine.onWorkersLost();
    return outputs;
  }
}
