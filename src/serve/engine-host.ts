/** The engine behind the HTTP server: requests in, generations out. */

import type { WithLayers } from '../capture/row-layers.ts';
import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import { HttpError } from './http-error.ts';
import type { EngineRequest } from '../contract/request.ts';
import type { LiveEngine } from '../host/live-engine.ts';
import type { Choice } from './generation.ts';
import { Generation } from './generation.ts';
import { KvEngine, type EngineListeners, type KvEngineOptions } from './kv/kv-engine.ts';
import type { KvExchange } from './kv/kv-exchange.ts';
import type { TransferParams } from './kv/transfer-params.ts';

/** What the engine behind a server is made from. */
export type EngineHostOptions = KvEngineOptions;

/** Listeners. All are called between two steps, and must be quick. */
export type EngineObserver = EngineListeners &
  Readonly<{
    onOutput: (choice: Choice, output: EngineCoreOutput) => void;
    /** KV from elsewhere did not come. */
    onKvFailure: (requestId: string, error: Error) => void;
  }>;

export class EngineHost {
  readonly options: EngineHostOptions;
  /** `null` without `options.kv`. */
  readonly kv: KvExchange | null;
  readonly engine: LiveEngine;
  /** Gives the rows of an answer the layers that `options.rowsLayers` asks for. */
  readonly withLayers: WithLayers;
  readonly #served: KvEngine;
  readonly #generations: Map<string, Generation>;

  private constructor(served: KvEngine, generations: Map<string, Generation>) {
    this.options = served.options;
    this.kv = served.kv;
    this.engine = served.engine;
    this.withLayers = served.withLayers;
    this.#served = served;
    this.#generations = generations;
  }

  /** Rejects with NO_ADAPTER, BAD_VALUE or what else keeps the workers from starting. */
  static async start(options: EngineHostOptions, observer: EngineObserver): Promise<EngineHost> {
    const generations = new Map<string, Generation>();
    const served = await KvEngine.start(options, {
      ...observer,
      onOutput: (output, transfer) => {
        const generation = generations.get(output.requestId);
        if (generation === undefined) return;
        if (output.finishReason !== null) generations.delete(output.requestId);
        observer.onOutput(generation.add(output, transfer), output);
      },
      onKvFailure: (requestId, error) => {
        const choice = generations.get(requestId)?.choiceOf(requestId);
        if (choice !== undefined && options.kv!.onLoadFailure === 'fail') {
          choice.failure = HttpError.of('KV_LOAD_FAILED', null, error.message);
        }
        observer.onKvFailure(requestId, error);
      },
    });
    return new EngineHost(served, generations);
  }

  /** Requests that were submitted and have not ended. */
  get numRequests(): number {
    return this.#generations.size;
  }

  /**
   * Hands the requests to the engine, all or none. Throws what `EngineCore.addRequest` throws, and ENGINE_DEAD.
   */
  submit(requests: readonly EngineRequest[], transfer: TransferParams | null = null): Generation {
    const generation = new Generation(requests);
    this.#served.add(requests, transfer);
    for (const { requestId } of requests) this.#generations.set(requestId, generation);
    return generation;
  }

  /** Ends what is left of a generation at once; its choices get finish reason `abort`, and the rows they have. */
  abort(generation: Generation): void {
    this.engine.abort(generation.unfinishedIds);
  }

  /** Ends what is still running, then the workers. Idempotent. */
  async close(): Promise<void> {
    await this.#served.close();
  }
}
