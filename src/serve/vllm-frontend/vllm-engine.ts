/**
 * An engine behind vLLM's frontend: starts the workers, looks for a frontend, serves it to its end. What happens when
 * is decided in `Handshake` and `FrontendSession`; here are promises and turns of the event loop.
 */

import { randomUUID } from 'node:crypto';
import { KvEngine, type KvEngineObserver, type KvEngineOptions } from '../kv/kv-engine.ts';
import { version } from '../server-parts.ts';
import { attach, type AttachOptions, type OnJoin } from './attach.ts';
import { FrontendSession, type SessionOptions } from './frontend-session.ts';
import type { FrontendSockets } from './frontend-sockets.ts';
import type { EngineFacts } from './handshake.ts';
import { madeUpLogprobs } from './made-up-logprobs.ts';
import { LAYOUT } from './wire/vllm-layout.ts';
import type { RowsFor } from './wire/sampling-map.ts';

export type VllmEngineConfig = Pick<AttachOptions, 'address' | 'parallelConfigHash' | 'goneAfterMs'> &
  Readonly<{
    /** How long the first frontend may take to appear. */
    timeoutMs: number;
    engine: KvEngineOptions;
    /** Among the data-parallel engines of the frontend. */
    engineIndex: number;
    rowsFor: RowsFor;
    maxMessageBytes: number;
    /** The engine ends with its first frontend; else it looks for the next one. */
    once: boolean;
    log: (level: 'info' | 'warn', text: string) => void;
  }>;

/** How a frontend ends for the engine. `stopped`: the engine was told to. */
type End = Readonly<{ kind: 'gone' | 'stopped' }> | Readonly<{ kind: 'dead'; error: unknown }>;

export class VllmEngine {
  readonly #config: VllmEngineConfig;
  readonly #facts: EngineFacts;
  readonly #stopping: AbortController = new AbortController();
  readonly #dying: AbortController = new AbortController();
  #served: KvEngine | null = null;
  #session: FrontendSession | null = null;
  #isFlushPlanned = false;
  #onEnd: (end: End) => void = () => {};

  private constructor(config: VllmEngineConfig) {
    this.#config = config;
    this.#facts = factsOf(config);
  }

  /** Starts the workers. Rejects as `KvEngine.start` does. */
  static async start(config: VllmEngineConfig): Promise<VllmEngine> {
    const engine = new VllmEngine(config);
    engine.#served = await KvEngine.start(config.engine, engine.#observer());
    return engine;
  }

  get served(): KvEngine {
    return this.#served!;
  }

  /** Requests of the frontend that are owed an end. */
  get numRequests(): number {
    return this.#session?.numRequests ?? 0;
  }

  /**
   * Serves one frontend, or one after the other. Resolves when there is none left to serve, or after `stop`. Rejects
   * with NO_FRONTEND, BAD_FRONTEND, and with what the engine died of. The workers end with it.
   */
  async run(): Promise<'gone' | 'stopped'> {
    const { signal } = this.#stopping;
    try {
      for (let timeoutMs: number | null = this.#config.timeoutMs; ; timeoutMs = null) {
        const end = await this.#serveFrontend(timeoutMs);
        if (end.kind === 'dead') throw end.error;
        if (end.kind === 'stopped' || this.#config.once) return end.kind;
      }
    } catch (error) {
      if (signal.aborted && error === signal.reason) return 'stopped';
      throw error;
    } finally {
      await this.served.close();
    }
  }

  /** Every request is aborted, and the frontend is told that the engine ends. */
  stop(): void {
    this.#stopping.abort();
    this.#onEnd({ kind: 'stopped' });
  }

  /** `timeoutMs`: how long the first one may take to appear; `null`: those after it come when they come. */
  async #serveFrontend(timeoutMs: number | null): Promise<End> {
    const { log, address, parallelConfigHash, goneAfterMs } = this.#config;
    const signal = AbortSignal.any([this.#stopping.signal, this.#dying.signal]);
    const { promise: ended, resolve } = Promise.withResolvers<End>();
    this.#onEnd = resolve;
    log('info', `waiting for a vLLM frontend at ${address}`);
    const options: AttachOptions = { address, engine: this.#facts, parallelConfigHash, timeoutMs, goneAfterMs };
    const onJoin: OnJoin = (addresses, sockets) => this.#openSession(addresses.inputs.length, addresses, sockets);
    const sockets = await attach(options, onJoin, signal);
    log('info', `serves the vLLM frontend at ${address}`);
    let isGone = true;
    try {
      const end = await ended;
      isGone = end.kind === 'gone';
      if (end.kind !== 'gone') {
        this.#session!.stop();
        this.#session!.sayDead(now());
      }
      log('info', end.kind === 'gone' ? 'the frontend is gone' : 'the frontend is told that the engine ends');
      return end;
    } finally {
      this.#closeSession();
      await sockets.close({ isGone });
    }
  }

  #openSession(
    numClients: number,
    { coordinator }: Parameters<OnJoin>[0],
    sockets: () => FrontendSockets,
  ): ReturnType<OnJoin> {
    this.#closeSession();
    const { served } = this;
    const { engine } = served;
    const session = new FrontendSession(this.#sessionOptions(numClients), {
      engine: {
        add: ({ request, transfer }) => served.add([request], transfer),
        abort: (requestIds) => engine.abort(requestIds),
        pause: () => engine.pause(),
        resume: () => engine.resume(),
        resetPrefixCache: (resetRunning) => engine.resetPrefixCache(resetRunning),
        stats: () => engine.stats(),
      },
      send: (clientIndex, frames) => sockets().send(clientIndex, frames),
      tellCoordinator: coordinator === null ? null : (frames) => sockets().tellCoordinator(frames),
      warn: (text) => this.#config.log('warn', text),
    });
    this.#session = session;
    return {
      onMessage: (clientIndex, frames) => {
        session.onMessage(clientIndex, frames, now());
        this.#flush();
      },
      onCoordinator: (frames) => session.onCoordinator(frames),
      onClientGone: (clientIndex) => {
        session.onClientGone(clientIndex);
        this.#flush();
        if (session.isOver) this.#onEnd({ kind: 'gone' });
      },
    };
  }

  /** A frontend leaves nothing behind: neither requests nor a pause. */
  #closeSession(): void {
    this.#session?.stop();
    this.#session = null;
    this.served.engine.resume();
  }

  #observer(): KvEngineObserver {
    const { log } = this.#config;
    return {
      onOutput: (output, transfer) => {
        this.#session?.onOutput(output, transfer, now());
        this.#planFlush();
      },
      onBegin: () => this.#session?.onStepBegun(now()),
      onStep: () => {
        this.#session?.onStepEnded(now());
        this.#flush();
      },
      onLoss: ({ message }) => {
        log('warn', `workers were lost, new ones are being started: ${message}`);
        this.#session?.onWorkersLost();
        this.#flush();
      },
      onRestart: () => log('warn', 'new workers run; what ran is computed anew'),
      onDeath: (error) => {
        this.#dying.abort(error);
        this.#onEnd({ kind: 'dead', error });
      },
      onOffloadProblem: (message) => log('warn', message),
      onKvFailure: (requestId, error) => log('warn', `KV of "${requestId}" did not come: ${error.message}`),
    };
  }

  #sessionOptions(numClients: number): SessionOptions {
    const { engine: options, engineIndex, rowsFor, maxMessageBytes } = this.#config;
    const { model, engine, numRanks, epoch } = options;
    return {
      engineIndex,
      numExperts: model.numExperts,
      numWorkers: numRanks,
      blockSize: engine.blockSize,
      weightVersion: options.kvOffload?.weightVersion || 'default',
      logprobs: () => madeUpLogprobs(model.vocabSize, epoch),
      withLayers: this.served.withLayers,
      rules: {
        numClients,
        rowsFor,
        maxMessageBytes,
        vocabSize: model.vocabSize,
        maxModelLen: engine.maxModelLen,
        transfer: this.served.kv?.rules ?? null,
      },
    };
  }

  #flush(): void {
    if (this.#session?.flush(now()) === true) this.#planFlush();
  }

  /** In a later turn of the event loop: outputs may come outside of a step, and rows may be many. */
  #planFlush(): void {
    if (this.#isFlushPlanned) return;
    this.#isFlushPlanned = true;
    setImmediate(() => {
      this.#isFlushPlanned = false;
      this.#flush();
    });
  }
}

/** Seconds of the machine's monotonic clock, which Python's `time.monotonic` reads too. */
function now(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

function factsOf({ engine: { engine, numRanks, pipelineSplit }, engineIndex }: VllmEngineConfig): EngineFacts {
  return {
    engineIndex,
    version: `routed-experts ${version()}, as vLLM ${LAYOUT.version}`,
    instanceId: randomUUID().replaceAll('-', '').slice(0, 16),
    maxModelLen: engine.maxModelLen,
    numBlocks: engine.numBlocks,
    blockSize: engine.blockSize,
    maxNumSeqs: engine.maxNumSeqs,
    maxNumBatchedTokens: engine.maxNumBatchedTokens,
    numWorkers: numRanks,
    numStages: pipelineSplit?.length ?? 1,
  };
}
