/** The engine behind the server: requests in, generations out, and KV for and from other servers. */

import type { WithLayers } from '../capture/row-layers.ts';
import type { DesignReference } from '../contract/config.ts';
import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { HttpError } from './http-error.ts';
import type { EngineRequest } from '../contract/request.ts';
import { DesignSession, type SessionConfig } from '../host/design-session.ts';
import { LiveEngine, type LiveEngineOptions } from '../host/live-engine.ts';
import { RowSteps } from '../host/row-steps.ts';
import type { Choice } from './answer/generation.ts';
import { Generation } from './answer/generation.ts';
import { Pacer, type PaceOptions } from './answer/pacer.ts';
import { KvExchange, type EngineSide, type KvExchangeOptions } from './kv/kv-exchange.ts';
import { Limited } from './kv/limited.ts';
import type { TransferParams } from './kv/transfer-params.ts';

export type EngineHostOptions = Omit<SessionConfig, 'routing'> &
  Readonly<{
    /** How rows get from the workers to the engine. */
    design: DesignReference;
    /** How often lost workers are started again before the server gives up. */
    maxRestarts: number;
    /** KV from and for other engines; `null` = none. */
    kv: KvExchangeOptions | null;
    /**
     * Folded into every key that is computed here, so that rows and tokens tell whose they are; 0 = none, and all
     * engines agree.
     */
    epoch: number;
    /** How slowly tokens come; `null`: as fast as the engine has them. */
    pace: PaceOptions | null;
    /** A choice that has ended says which step computed each of its rows. */
    followsSteps: boolean;
  }>;

/** Listeners. All are called between two steps, and must be quick. */
export type EngineObserver = Required<Pick<LiveEngineOptions, 'onStep' | 'onLoss' | 'onRestart' | 'onDeath'>> &
  Readonly<{
    onOutput: (choice: Choice, output: EngineCoreOutput) => void;
    /** KV from elsewhere did not come. */
    onKvFailure: (requestId: string, error: Error) => void;
    /** Something is wrong with the files of KV blocks; told once. */
    onOffloadProblem: (message: string) => void;
  }>;

/** Tasks beyond those that a rank has places for would be handed to it in another order, steps among them. */
const MOST_KV_MOVES = 2;

export class EngineHost {
  readonly options: EngineHostOptions;
  /** `null` without `options.kv`. */
  readonly kv: KvExchange | null;
  readonly engine: LiveEngine;
  /** Gives the rows of an answer the layers that `options.rowsLayers` asks for. */
  readonly withLayers: WithLayers;
  readonly #session: DesignSession;
  readonly #generations: Map<string, Generation> = new Map();
  readonly #observer: EngineObserver;
  readonly #pacer: Pacer | null;
  readonly #steps: RowSteps | null;
  #whenIdle: (() => void)[] = [];

  private constructor(options: EngineHostOptions, session: DesignSession, observer: EngineObserver) {
    this.options = options;
    this.kv = options.kv === null ? null : this.#makeExchange(options.kv);
    this.withLayers = session.withLayers;
    this.#session = session;
    this.#observer = observer;
    this.#pacer = options.pace === null ? null : new Pacer(options.pace);
    const steps = options.followsSteps ? new RowSteps() : null;
    this.#steps = steps;
    const { onStep, onLoss, onRestart, onDeath } = observer;
    this.engine = new LiveEngine(session, {
      onOutput: (output) => this.#onOutput(output),
      ...(steps === null ? {} : { onBegin: (step) => steps.onBegin(step) }),
      onStep,
      onLoss,
      onRestart,
      onDeath,
      onOffloadProblem: (message) => observer.onOffloadProblem(message),
      maxRestarts: options.maxRestarts,
      connector: this.kv,
    });
  }

  /** Rejects with NO_ADAPTER, BAD_VALUE or what else keeps the workers from starting. */
  static async start(options: EngineHostOptions, observer: EngineObserver): Promise<EngineHost> {
    const session = await DesignSession.start(options.design, sessionConfig(options));
    let host: EngineHost | null = null;
    try {
      host = new EngineHost(options, session, observer);
      await host.#openExchange();
      return host;
    } catch (error) {
      await (host ?? session).close();
      throw error;
    }
  }

  /** Requests that were submitted and have not ended. */
  get numRequests(): number {
    return this.#generations.size;
  }

  /** Those that the requests belong to. */
  get numGenerations(): number {
    return new Set(this.#generations.values()).size;
  }

  /** Resolves when no request is left. */
  async idle(): Promise<void> {
    if (this.#generations.size > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  /**
   * Hands the requests to the engine, all or none. Throws what `EngineCore.addRequest` throws, and ENGINE_DEAD.
   */
  submit(requests: readonly EngineRequest[], transfer: TransferParams | null = null): Generation {
    const generation = new Generation(requests);
    const added: string[] = [];
    try {
      for (const request of requests) {
        this.engine.add(request);
        this.#steps?.added(request);
        added.push(request.requestId);
      }
    } catch (error) {
      this.engine.abort(added);
      throw error;
    }
    // No step can begin or end between the calls above: that happens in later turns of the event loop.
    if (transfer !== null) this.#announce(requests, transfer);
    for (const requestId of added) {
      this.#generations.set(requestId, generation);
      this.#pacer?.begin(requestId);
    }
    return generation;
  }

  /** Ends what is left of a generation at once; its choices get finish reason `abort`, and the rows they have. */
  abort(generation: Generation): void {
    const ids = generation.unfinishedIds;
    this.engine.abort(ids);
    // The engine may be done with a request whose tokens are held back.
    this.#pacer?.flush(ids);
  }

  /** Ends what is still running, then the workers. Idempotent. */
  async close(): Promise<void> {
    await this.engine.stop();
    this.#pacer?.flushAll();
    this.kv?.close();
    await this.#session.close();
  }

  #announce(requests: readonly EngineRequest[], transfer: TransferParams): void {
    const { promptTokenIds, sampling } = requests[0]!;
    const rowsStart = sampling.returnRoutedExperts ? sampling.routedExpertsPromptStart : null;
    const ids = requests.map(({ requestId }) => requestId);
    this.kv!.announce(ids, transfer, promptTokenIds, rowsStart);
  }

  #makeExchange(options: KvExchangeOptions): KvExchange {
    const { model, engine } = this.options;
    return new KvExchange(options, model, engine, (requestId, error) => {
      const choice = this.#generations.get(requestId)?.choiceOf(requestId);
      if (choice !== undefined && options.onLoadFailure === 'fail') {
        choice.failure = HttpError.of('KV_LOAD_FAILED', null, error.message);
      }
      this.#observer.onKvFailure(requestId, error);
    });
  }

  /**
   * Rejects with CANNOT_LISTEN, and with BAD_VALUE for a design that captures rows and cannot take over those that come
   * with KV: it would compute every prompt again.
   */
  async #openExchange(): Promise<void> {
    const { kv, design } = this.options;
    if (kv === null) return;
    const { engine } = this;
    if (!engine.takesExternalKv) {
      const wanted = 'deltas or off with --role: no other design takes over KV and its rows from another server';
      throw RoutedExpertsError.of('BAD_VALUE', '--design', design, wanted);
    }
    const moves = new Limited(MOST_KV_MOVES);
    const engineSide: EngineSide = {
      finishLoad: (loadId, outcome) => engine.finishLoad(loadId, outcome),
      releaseBlocks: (requestIndex) => engine.releaseBlocks(requestIndex),
      readKv: (blockIds) => moves.run(() => engine.readKv(blockIds)),
      writeKv: (blockIds, keys) => moves.run(() => engine.writeKv(blockIds, keys)),
    };
    await this.kv!.open(engineSide).catch((error: Error) => {
      throw RoutedExpertsError.of('CANNOT_LISTEN', `${kv.host}:${kv.port}`, error.message);
    });
  }

  #onOutput(output: EngineCoreOutput): void {
    const generation = this.#generations.get(output.requestId);
    if (generation === undefined) return;
    const kvTransfer = this.kv?.onOutput(output) ?? null;
    const steps = output.finishReason === null ? null : (this.#steps?.take(output.requestId) ?? null);
    const hand = (): void => {
      if (output.finishReason !== null) this.#forget(output.requestId);
      this.#observer.onOutput(generation.add(output, { kvTransfer, steps }), output);
    };
    const { requestId, finishReason, newTokenIds } = output;
    const isUrgent = finishReason === 'abort' || finishReason === 'error';
    const held = { numTokens: newTokenIds.length, isUrgent, isLast: finishReason !== null, hand };
    if (this.#pacer === null) hand();
    else this.#pacer.hold(requestId, held);
  }

  #forget(requestId: string): void {
    this.#generations.delete(requestId);
    if (this.#generations.size > 0) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }
}

function sessionConfig(options: EngineHostOptions): SessionConfig {
  const {
    design: _design,
    maxRestarts: _maxRestarts,
    kv: _kv,
    pace: _pace,
    followsSteps: _followsSteps,
    epoch,
    ...session
  } = options;
  return { ...session, routing: epoch === 0 ? { kind: 'deterministic' } : { kind: 'nondeterministic', epoch } };
}
