/**
 * A live engine with KV for and from other engines. The HTTP server and the adapter of vLLM's frontend are both put on
 * one.
 */

import type { WithLayers } from '../../capture/row-layers.ts';
import type { DesignReference } from '../../contract/config.ts';
import type { EngineCoreOutput } from '../../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { EngineRequest } from '../../contract/request.ts';
import { DesignSession, type SessionConfig } from '../../host/design-session.ts';
import { LiveEngine, type LiveEngineOptions } from '../../host/live-engine.ts';
import { KvExchange, type EngineSide, type KvExchangeOptions } from './kv-exchange.ts';
import { Limited } from './limited.ts';
import type { TransferAnswer, TransferParams } from './transfer-params.ts';

export type KvEngineOptions = Omit<SessionConfig, 'routing'> &
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
  }>;

/** Listeners to the engine itself. All are called between two steps, and must be quick. */
export type EngineListeners = Required<
  Pick<LiveEngineOptions, 'onStep' | 'onLoss' | 'onRestart' | 'onDeath' | 'onOffloadProblem'>
> &
  Pick<LiveEngineOptions, 'onBegin'>;

export type KvEngineObserver = EngineListeners &
  Readonly<{
    /** `transfer`: what the proxy is to be told with the last output of a request whose KV is kept. */
    onOutput: (output: EngineCoreOutput, transfer: TransferAnswer | null) => void;
    /** KV from elsewhere did not come. */
    onKvFailure: (requestId: string, error: Error) => void;
  }>;

/** Tasks beyond those that a rank has places for would be handed to it in another order, steps among them. */
const MOST_KV_MOVES = 2;

export class KvEngine {
  readonly options: KvEngineOptions;
  /** `null` without `options.kv`. */
  readonly kv: KvExchange | null;
  readonly engine: LiveEngine;
  /** Gives the rows of an answer the layers that `options.rowsLayers` asks for. */
  readonly withLayers: WithLayers;
  readonly #session: DesignSession;

  private constructor(options: KvEngineOptions, session: DesignSession, observer: KvEngineObserver) {
    const { onOutput, onKvFailure, ...listeners } = observer;
    const { model, engine, maxRestarts } = options;
    const kv = options.kv === null ? null : new KvExchange(options.kv, model, engine, onKvFailure);
    this.options = options;
    this.kv = kv;
    this.withLayers = session.withLayers;
    this.#session = session;
    this.engine = new LiveEngine(session, {
      ...listeners,
      onOutput: (output) => onOutput(output, kv?.onOutput(output) ?? null),
      maxRestarts,
      connector: kv,
    });
  }

  /** Rejects with NO_ADAPTER, CANNOT_LISTEN, BAD_VALUE or what else keeps the workers from starting. */
  static async start(options: KvEngineOptions, observer: KvEngineObserver): Promise<KvEngine> {
    const session = await DesignSession.start(options.design, sessionConfig(options));
    let started: KvEngine | null = null;
    try {
      started = new KvEngine(options, session, observer);
      await started.#openExchange();
      return started;
    } catch (error) {
      await (started ?? session).close();
      throw error;
    }
  }

  /**
   * Hands requests to the engine, all or none. `transfer` is what they begin with or leave behind. Throws what
   * `EngineCore.addRequest` throws, and ENGINE_DEAD.
   */
  add(requests: readonly EngineRequest[], transfer: TransferParams | null): void {
    const added: string[] = [];
    try {
      for (const request of requests) {
        this.engine.add(request);
        added.push(request.requestId);
      }
    } catch (error) {
      this.engine.abort(added);
      throw error;
    }
    // No step can begin or end between the calls above: that happens in later turns of the event loop.
    if (transfer === null) return;
    const { promptTokenIds, sampling } = requests[0]!;
    const rowsStart = sampling.returnRoutedExperts ? sampling.routedExpertsPromptStart : null;
    this.kv!.announce(added, transfer, promptTokenIds, rowsStart);
  }

  /** Ends what is still running, then the workers. Idempotent. */
  async close(): Promise<void> {
    await this.engine.stop();
    this.kv?.close();
    await this.#session.close();
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
}

function sessionConfig(options: KvEngineOptions): SessionConfig {
  const { design: _design, maxRestarts: _maxRestarts, kv: _kv, epoch, ...session } = options;
  return { ...session, routing: epoch === 0 ? { kind: 'deterministic' } : { kind: 'nondeterministic', epoch } };
}
