/** The engine as a library: requests as promises and streams. */

import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { DeviceInfo } from '../contract/device.ts';
import type { EngineStats } from '../engine/engine-core.ts';
import type { WorkerLiveCounts } from '../worker/executor.ts';
import { DesignSession } from './design-session.ts';
import { engineSettings, type EngineOptions } from './engine-options.ts';
import { engineRequest, type GenerateOptions } from './generate-options.ts';
import type { OffloadStats } from './kv-tier/kv-offload.ts';
import { LiveEngine } from './live-engine.ts';
import { LiveRequest, type GenerationResult, type GenerationUpdate } from './live-request.ts';

/**
 * Starts an engine. Rejects with UNKNOWN_NAME or BAD_VALUE for an option, model, design or size that cannot be, with
 * NO_ADAPTER where WebGPU has no adapter, with ROUTING_NOT_CAPTURED for a router whose rows nobody writes, with
 * BAD_DESIGN or DESIGN_FAILED for a design of the caller's own that cannot be used; nothing is left behind then.
 */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  const { design, session: config, maxRestarts } = engineSettings(options);
  const session = await DesignSession.start(design, config);
  try {
    return new Engine(session, maxRestarts);
  } catch (error) {
    await session.close();
    throw error;
  }
}

/** An engine that runs until it is closed. */
export class Engine {
  readonly #session: DesignSession;
  readonly #live: LiveEngine;
  readonly #requests: Map<string, LiveRequest> = new Map();
  #numRequests = 0;
  #closed: Promise<void> | null = null;

  /** Use `createEngine`. */
  constructor(session: DesignSession, maxRestarts: number) {
    this.#session = session;
    this.#live = new LiveEngine(session, { maxRestarts, onOutput: (output) => this.#onOutput(output) });
  }

  /** One device per rank. */
  get devices(): readonly DeviceInfo[] {
    return this.#live.devices;
  }

  /**
   * Generates until a stop token or `maxTokens`, and resolves with all tokens and rows. Rejects with what the engine
   * refuses (PROMPT_TOO_LONG, EXCEEDS_POOL, …), with the signal's reason, with DESIGN_FAILED for a design of the
   * caller's own that broke its contract, and with ENGINE_DEAD.
   */
  async generate(prompt: ArrayLike<number>, options: GenerateOptions = {}): Promise<GenerationResult> {
    for await (const { result } of this.stream(prompt, options)) if (result !== null) return result;
    throw RoutedExpertsError.of('INVARIANT', 'a stream ended without a result');
  }

  /**
   * As `generate`, with the tokens as they come. A reader that is slower than the engine gets the tokens of several
   * steps at once. A reader that leaves ends the request. The request begins with the first read.
   */
  async *stream(
    prompt: ArrayLike<number>,
    options: GenerateOptions = {},
  ): AsyncGenerator<GenerationUpdate, void, void> {
    const { signal } = options;
    if (signal !== undefined && !((signal as unknown) instanceof AbortSignal))
      throw RoutedExpertsError.of('BAD_VALUE', 'signal', signal, 'an AbortSignal');
    signal?.throwIfAborted();
    const request = this.#add(prompt, options);
    const onAbort = (): void => {
      this.#abort(request);
      request.fail(signal!.reason);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      for (;;) {
        const update = await request.next();
        yield update;
        if (update.result !== null) return;
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.#abort(request);
    }
  }

  /**
   * Ends a request at once: it resolves with finish reason `abort`, and with the tokens and rows that it has. Unknown
   * ids are ignored.
   */
  abort(requestId: string): void {
    if (this.#requests.has(requestId)) this.#live.abort([requestId]);
  }

  /**
   * Forgets every cached prefix. With `resetRunning` all running requests are preempted and computed again. `false`:
   * nothing has happened, since a running request holds blocks. Throws ENGINE_DEAD.
   */
  resetPrefixCache(resetRunning: boolean = false): boolean {
    return this.#live.resetPrefixCache(resetRunning);
  }

  /** What the engine core holds and has done. */
  stats(): EngineStats {
    return this.#live.stats();
  }

  /** What is kept of KV blocks outside the device; `null` without `kvOffload`. */
  offloadStats(): OffloadStats | null {
    return this.#live.offloadStats();
  }

  /** What the workers hold; all 0 when nothing runs. Rejects with WORKER_LOST if they are gone, as after `close`. */
  liveCounts(): Promise<WorkerLiveCounts> {
    return this.#live.workerLiveCounts();
  }

  /** Ends the requests that still run, then the workers. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Its id may be another request's by now, if it has ended. */
  #abort(request: LiveRequest): void {
    if (this.#requests.get(request.requestId) === request) this.abort(request.requestId);
  }

  #add(prompt: ArrayLike<number>, options: GenerateOptions): LiveRequest {
    this.#numRequests++;
    const { vocabSize } = this.#session.config.model;
    const made = engineRequest(prompt, options, { number: this.#numRequests, vocabSize });
    const request = new LiveRequest(made.requestId, this.#session.withLayers);
    this.#live.add(made);
    this.#requests.set(made.requestId, request);
    return request;
  }

  #onOutput(output: EngineCoreOutput): void {
    const request = this.#requests.get(output.requestId);
    if (request === undefined) return;
    if (output.finishReason !== null) this.#requests.delete(output.requestId);
    if (output.failure !== undefined) request.fail(output.failure);
    else if (output.finishReason === 'error') void this.#failDead(request);
    else request.add(output);
  }

  /** The last output of a request comes just before the engine ends, and with it the reason. */
  async #failDead(request: LiveRequest): Promise<void> {
    request.fail(RoutedExpertsError.of('ENGINE_DEAD', await this.#live.whyDead()));
  }

  async #close(): Promise<void> {
    await this.#live.stop();
    await this.#session.close();
  }
}
