/** The engine as a library: an engine core, its driver and its worker threads behind four verbs. */

import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { SamplingParams } from '../contract/request.ts';
import type { DeviceInfo } from '../contract/device.ts';
import { EngineCore, type EngineStats } from '../engine/engine-core.ts';
import { prepareAdapters } from '../kernels/device/open-device.ts';
import { EngineDriver } from '../worker/engine-driver.ts';
import type { WorkerLiveCounts } from '../worker/executor.ts';
import { DesignSession } from './design-session.ts';
import { engineSettings, type EngineOptions, type EngineSettings } from './engine-options.ts';
import { LiveRequest, type GenerationResult, type GenerationUpdate } from './live-request.ts';

/** How one request is sampled, and what comes back. */
export type GenerateOptions = Partial<SamplingParams> &
  Readonly<{
    /** Unique among the requests alive; made up where it is left out. */
    requestId?: string;
    /** Policy `priority`: the smaller number goes first. */
    priority?: number;
    /** Requests with different salts share no cached block. */
    cacheSalt?: string;
    /** Ends the request when it aborts; what was asked for then rejects with its reason. */
    signal?: AbortSignal;
  }>;

const DEFAULT_MAX_TOKENS = 16;

/**
 * Starts an engine. Rejects with UNKNOWN_NAME or BAD_VALUE for a model, design or size that cannot be, with NO_ADAPTER
 * where WebGPU has no adapter, with ROUTING_NOT_CAPTURED for a router whose rows nobody writes, with BAD_DESIGN or
 * DESIGN_FAILED for a design of the caller's own that cannot be used; nothing is left behind then.
 */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  const settings = engineSettings(options);
  if (settings.session.device === 'webgpu') await prepareAdapters();
  const session = await DesignSession.start(settings.design, settings.session);
  try {
    return new Engine(settings, session);
  } catch (error) {
    await session.close();
    throw error;
  }
}

/** An engine that runs until it is closed. */
export class Engine {
  readonly #session: DesignSession;
  readonly #core: EngineCore;
  readonly #vocabSize: number;
  readonly #driver: EngineDriver;
  readonly #running: Promise<void>;
  readonly #requests: Map<string, LiveRequest> = new Map();
  #numRequests = 0;
  #deathReason: string | null = null;
  #closed: Promise<void> | null = null;

  /** Use `createEngine`. */
  constructor({ session: { model, engine, queueDepth }, maxRestarts }: EngineSettings, session: DesignSession) {
    this.#session = session;
    this.#vocabSize = model.vocabSize;
    this.#core = new EngineCore(engine, session.engineHalf());
    this.#driver = new EngineDriver({
      engine: this.#core,
      executor: session.executor,
      queueDepth,
      maxRestarts,
      restart: () => session.restart(),
      onOutput: (output) => this.#onOutput(output),
    });
    this.#running = this.#driver.run().catch((error: unknown) => this.#die(error));
  }

  /** One device per rank. */
  get devices(): readonly DeviceInfo[] {
    return this.#session.executor.devices;
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
   * As `generate`, with the tokens as they come. A reader who is slower than the engine gets the tokens of several
   * steps at once. A reader who leaves ends the request.
   */
  async *stream(
    prompt: ArrayLike<number>,
    options: GenerateOptions = {},
  ): AsyncGenerator<GenerationUpdate, void, void> {
    const { signal } = options;
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
    if (this.#requests.has(requestId)) this.#driver.abort([requestId]);
  }

  /**
   * Forgets every cached prefix. With `resetRunning` all running requests are preempted and computed again. `false`:
   * nothing has happened, since a running request holds blocks.
   */
  resetPrefixCache(resetRunning: boolean = false): boolean {
    return this.#driver.resetPrefixCache(resetRunning);
  }

  /** What the engine core holds and has done. */
  stats(): EngineStats {
    return this.#core.stats();
  }

  /** What the workers hold; all 0 when nothing runs. Rejects if they are gone. */
  liveCounts(): Promise<WorkerLiveCounts> {
    return this.#driver.executor.liveCounts();
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
    if (this.#deathReason !== null) throw RoutedExpertsError.of('ENGINE_DEAD', this.#deathReason);
    this.#numRequests++;
    const requestId = options.requestId ?? `request-${this.#numRequests}`;
    const request = new LiveRequest(requestId);
    this.#driver.add({
      requestId,
      promptTokenIds: this.#tokens(prompt),
      sampling: {
        maxTokens: options.maxTokens ?? DEFAULT_MAX_TOKENS,
        minTokens: options.minTokens ?? 0,
        eosTokenId: options.eosTokenId ?? null,
        stopTokenIds: options.stopTokenIds ?? [],
        returnRoutedExperts: options.returnRoutedExperts ?? false,
        routedExpertsPromptStart: options.routedExpertsPromptStart ?? 0,
      },
      priority: options.priority ?? 0,
      arrivalTime: this.#numRequests,
      cacheSalt: options.cacheSalt ?? null,
    });
    this.#requests.set(requestId, request);
    return request;
  }

  #tokens(prompt: ArrayLike<number>): Uint32Array {
    const vocabSize = this.#vocabSize;
    for (let i = 0; i < prompt.length; i++) {
      const token = prompt[i]!;
      if (Number.isInteger(token) && token >= 0 && token < vocabSize) continue;
      throw RoutedExpertsError.of('BAD_VALUE', `prompt[${i}]`, token, `a token id in [0, ${vocabSize})`);
    }
    return Uint32Array.from(prompt);
  }

  #onOutput(output: EngineCoreOutput): void {
    const request = this.#requests.get(output.requestId);
    if (request === undefined) return;
    if (output.finishReason !== null) this.#requests.delete(output.requestId);
    if (output.finishReason === 'error')
      request.fail(
        output.failure ?? RoutedExpertsError.of('ENGINE_DEAD', this.#deathReason ?? 'its workers were lost'),
      );
    else request.add(output);
  }

  #die(error: unknown): void {
    this.#deathReason = error instanceof Error ? error.message : String(error);
  }

  async #close(): Promise<void> {
    this.#driver.abort([...this.#requests.keys()]);
    this.#driver.stop();
    await this.#running;
    this.#deathReason ??= 'it was closed';
    await this.#session.close();
  }
}
