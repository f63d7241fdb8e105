/** The engine behind the HTTP server: requests in, generations out, as fast as `pace` lets them. */

import type { WithLayers } from '../capture/row-layers.ts';
import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import { HttpError } from './http-error.ts';
import type { EngineRequest } from '../contract/request.ts';
import type { LiveEngine } from '../host/live-engine.ts';
import { RowSteps } from '../host/row-steps.ts';
import type { Choice } from './answer/generation.ts';
import { Generation } from './answer/generation.ts';
import { Pacer, type PaceOptions } from './answer/pacer.ts';
import { KvEngine, type EngineListeners, type KvEngineOptions } from './kv/kv-engine.ts';
import type { KvExchange } from './kv/kv-exchange.ts';
import type { TransferAnswer, TransferParams } from './kv/transfer-params.ts';

/** What the engine behind a server is made from. */
export type EngineHostOptions = KvEngineOptions &
  Readonly<{
    /** How slowly tokens come; `null`: as fast as the engine has them. */
    pace: PaceOptions | null;
    /** A choice that has ended says which step computed each of its rows. */
    followsSteps: boolean;
  }>;

/** Listeners. All are called between two steps, and must be quick. */
export type EngineObserver = Omit<EngineListeners, 'onBegin'> &
  Readonly<{
    onOutput: (choice: Choice, output: EngineCoreOutput) => void;
    /** KV from elsewhere did not come. */
    onKvFailure: (requestId: string, error: Error) => void;
  }>;

export class EngineHost {
  readonly options: EngineHostOptions;
  readonly #served: KvEngine;
  readonly #requests: LiveGenerations;

  private constructor(options: EngineHostOptions, served: KvEngine, requests: LiveGenerations) {
    this.options = options;
    this.#served = served;
    this.#requests = requests;
  }

  /** Rejects with NO_ADAPTER, BAD_VALUE or what else keeps the workers from starting. */
  static async start(options: EngineHostOptions, observer: EngineObserver): Promise<EngineHost> {
    const { pace, followsSteps, ...engine } = options;
    const requests = new LiveGenerations({ pace, followsSteps }, observer.onOutput);
    const { steps } = requests;
    const served = await KvEngine.start(engine, {
      ...observer,
      ...(steps === null ? {} : { onBegin: (step) => steps.onBegin(step) }),
      onOutput: (output, transfer) => requests.onOutput(output, transfer),
      onKvFailure: (requestId, error) => {
        if (options.kv!.onLoadFailure === 'fail') requests.fail(requestId, error);
        observer.onKvFailure(requestId, error);
      },
    });
    return new EngineHost(options, served, requests);
  }

  get engine(): LiveEngine {
    return this.#served.engine;
  }

  /** `null` without `options.kv`. */
  get kv(): KvExchange | null {
    return this.#served.kv;
  }

  /** Gives the rows of an answer the layers that `options.rowsLayers` asks for. */
  get withLayers(): WithLayers {
    return this.#served.withLayers;
  }

  /** Requests that were submitted and have not ended. */
  get numRequests(): number {
    return this.#requests.byRequest.size;
  }

  /** Those that the requests belong to. */
  get numGenerations(): number {
    return new Set(this.#requests.byRequest.values()).size;
  }

  /** Resolves when no request is left. */
  async idle(): Promise<void> {
    await this.#requests.idle();
  }

  /**
   * Hands the requests to the engine, all or none. Throws what `EngineCore.addRequest` throws, and ENGINE_DEAD.
   */
  submit(requests: readonly EngineRequest[], transfer: TransferParams | null = null): Generation {
    const generation = new Generation(requests);
    this.#served.add(requests, transfer);
    this.#requests.add(requests, generation);
    return generation;
  }

  /** Ends what is left of a generation at once; its choices get finish reason `abort`, and the rows they have. */
  abort(generation: Generation): void {
    const ids = generation.unfinishedIds;
    this.engine.abort(ids);
    // The engine may be done with a request whose tokens are held back.
    this.#requests.pacer?.flush(ids);
  }

  /** Ends what is still running, then the workers. Idempotent. */
  async close(): Promise<void> {
    await this.engine.stop();
    this.#requests.pacer?.flushAll();
    await this.#served.close();
  }
}

/** The generations that have not ended, and the outputs on their way to them. */
class LiveGenerations {
  readonly byRequest: Map<string, Generation> = new Map();
  readonly pacer: Pacer | null;
  readonly steps: RowSteps | null;
  readonly #onOutput: EngineObserver['onOutput'];
  #whenIdle: (() => void)[] = [];

  constructor(
    { pace, followsSteps }: Pick<EngineHostOptions, 'pace' | 'followsSteps'>,
    onOutput: EngineObserver['onOutput'],
  ) {
    this.pacer = pace === null ? null : new Pacer(pace);
    this.steps = followsSteps ? new RowSteps() : null;
    this.#onOutput = onOutput;
  }

  add(requests: readonly EngineRequest[], generation: Generation): void {
    for (const request of requests) {
      this.steps?.added(request);
      this.byRequest.set(request.requestId, generation);
      this.pacer?.begin(request.requestId);
    }
  }

  /** The KV of a request did not come. */
  fail(requestId: string, error: Error): void {
    const choice = this.byRequest.get(requestId)?.choiceOf(requestId);
    if (choice !== undefined) choice.failure = HttpError.of('KV_LOAD_FAILED', null, error.message);
  }

  onOutput(output: EngineCoreOutput, kvTransfer: TransferAnswer | null): void {
    const { requestId, finishReason, newTokenIds } = output;
    const generation = this.byRequest.get(requestId);
    if (generation === undefined) return;
    const steps = finishReason === null ? null : (this.steps?.take(requestId) ?? null);
    const hand = (): void => {
      if (finishReason !== null) this.#forget(requestId);
      this.#onOutput(generation.add(output, { kvTransfer, steps }), output);
    };
    const isUrgent = finishReason === 'abort' || finishReason === 'error';
    const held = { numTokens: newTokenIds.length, isUrgent, isLast: finishReason !== null, hand };
    if (this.pacer === null) hand();
    else this.pacer.hold(requestId, held);
  }

  async idle(): Promise<void> {
    if (this.byRequest.size > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  #forget(requestId: string): void {
    this.byRequest.delete(requestId);
    if (this.byRequest.size > 0) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }
}
