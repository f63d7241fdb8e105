/** The engine behind the server: requests in, generations out, workers started again when they are lost. */

import type {
  DesignReference,
  EngineConfig,
  ModelConfig,
  PrefixRows,
  RouterConfig,
  WorkerConfig,
  WorkerFault,
} from '../contract/config.ts';
import type { CaptureEngineHalf } from '../contract/capture.ts';
import type { DeviceInfo } from '../contract/device.ts';
import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { HttpError } from './http-error.ts';
import type { EngineRequest } from '../contract/request.ts';
import type { EngineStats } from '../engine/engine-core.ts';
import { EngineCore } from '../engine/engine-core.ts';
import type { SessionConfig } from '../host/design-session.ts';
import { DesignSession } from '../host/design-session.ts';
import type { StepTiming } from '../worker/engine-driver.ts';
import { EngineDriver } from '../worker/engine-driver.ts';
import type { ThreadExecutor } from '../worker/thread/thread-executor.ts';
import type { Executor, TransferCounts, WorkerLiveCounts } from '../worker/executor.ts';
import type { EngineSide, KvExchangeOptions } from './kv/kv-exchange.ts';
import { KvExchange } from './kv/kv-exchange.ts';
import { Limited } from './kv/limited.ts';
import type { TransferParams } from './kv/transfer-params.ts';
import type { Choice } from './generation.ts';
import { Generation } from './generation.ts';

export type EngineHostOptions = Readonly<{
  /** How rows get from the workers to the engine. */
  design: DesignReference;
  model: ModelConfig;
  engine: EngineConfig;
  device: WorkerConfig['device'];
  adapter: string | null;
  /** Worker threads; each runs every step. */
  numRanks: number;
  queueDepth: number;
  ballastMs: number;
  /** Absent = modular. */
  router?: RouterConfig;
  /** Of `deltas`. */
  prefixRows: PrefixRows;
  /** How likely a draft is right, where `engine` has any; absent = 0.7. */
  draftAcceptanceRate?: number;
  /** How often lost workers are started again before the server gives up. */
  maxRestarts: number;
  /** A worker that does not reply for this long is lost, ms; 0 = never. */
  stepTimeoutMs: number;
  /** KV from and for other engines; `null` = none. */
  kv: KvExchangeOptions | null;
  /**
   * Folded into every key that is computed here, so that rows and tokens tell whose they are; 0 = none, and all engines
   * agree.
   */
  epoch: number;
  /** Of the first workers only. */
  fault: WorkerFault | null;
}>;

/** Listeners. All are called between two steps, and must be quick. */
export type EngineObserver = Readonly<{
  onStep: (timing: StepTiming) => void;
  onOutput: (choice: Choice, output: EngineCoreOutput) => void;
  /** Workers were lost, and new ones are being started. */
  onLoss: (loss: RoutedExpertsError) => void;
  onRestart: () => void;
  /** KV from elsewhere did not come. */
  onKvFailure: (requestId: string, error: Error) => void;
  /** The engine has stopped for good. */
  onDeath: (error: unknown) => void;
}>;

/** Tasks beyond those that a rank has places for would be handed to it in another order, steps among them. */
const MOST_KV_MOVES = 2;
const NOTHING_TRANSFERRED: TransferCounts = { deviceToHost: 0, captureDeviceToHost: 0, acrossThreads: 0 };

export class EngineHost {
  readonly options: EngineHostOptions;
  readonly devices: readonly DeviceInfo[];
  /** `null` without `options.kv`. */
  readonly kv: KvExchange | null;
  readonly #session: DesignSession;
  readonly #core: EngineCore;
  readonly #driver: EngineDriver;
  readonly #running: Promise<void>;
  readonly #generations: Map<string, Generation> = new Map();
  readonly #observer: EngineObserver;
  #deathReason: string | null = null;
  #lastLoss: string | null = null;
  #numRestarts = 0;
  /** `null` while new workers are being started. */
  #executor: Executor | null;
  /** Of executors that are gone. */
  #earlierTransfers: TransferCounts = NOTHING_TRANSFERRED;

  private constructor(options: EngineHostOptions, session: DesignSession, observer: EngineObserver) {
    const { executor } = session;
    this.options = options;
    this.devices = executor.devices;
    this.#session = session;
    this.#executor = executor;
    this.#observer = observer;
    const capture = session.engineHalf();
    this.kv = options.kv === null ? null : this.#makeExchange(options.kv, capture);
    this.#core = new EngineCore(options.engine, capture, { connector: this.kv });
    this.#driver = new EngineDriver({
      engine: this.#core,
      executor,
      queueDepth: options.queueDepth,
      onOutput: (output) => this.#onOutput(output),
      onStep: observer.onStep,
      maxRestarts: options.maxRestarts,
      restart: (loss) => this.#restart(loss),
    });
    this.#running = this.#run();
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

  /** Why there will be no more answers, or `null`. */
  get deathReason(): string | null {
    return this.#deathReason;
  }

  /** What became of the workers so far; `lastLoss` is why they were last lost. */
  get workers(): Readonly<{ isRestarting: boolean; numRestarts: number; lastLoss: string | null }> {
    return { isRestarting: this.#executor === null, numRestarts: this.#numRestarts, lastLoss: this.#lastLoss };
  }

  /**
   * Why a request ended with `error` that has no failure of its own: its last output comes just before the engine
   * stops.
   */
  async whyDead(): Promise<string> {
    await this.#running;
    return this.#deathReason ?? 'unknown';
  }

  /** Requests that were submitted and have not ended. */
  get numRequests(): number {
    return this.#generations.size;
  }

  /**
   * Hands the requests to the engine, all or none. Throws what `EngineCore.addRequest` throws, and ENGINE_DEAD.
   */
  submit(requests: readonly EngineRequest[], transfer: TransferParams | null = null): Generation {
    if (this.#deathReason !== null) throw RoutedExpertsError.of('ENGINE_DEAD', this.#deathReason);
    const generation = new Generation(requests);
    const added: string[] = [];
    try {
      for (const request of requests) {
        this.#driver.add(request);
        added.push(request.requestId);
      }
    } catch (error) {
      this.#driver.abort(added);
      throw error;
    }
    // No step can begin or end between the calls above: that happens in later turns of the event loop.
    if (transfer !== null) this.#announce(requests, transfer);
    for (const requestId of added) this.#generations.set(requestId, generation);
    return generation;
  }

  /** Ends what is left of a generation at once; its choices get finish reason `abort`, and the rows they have. */
  abort(generation: Generation): void {
    this.#driver.abort(generation.unfinishedIds);
  }

  /**
   * Forgets every cached prefix; `false`, and nothing has happened, while blocks are held. See
   * `Scheduler.resetPrefixCache`.
   */
  resetPrefixCache(resetRunning: boolean): boolean {
    if (this.#deathReason !== null) throw RoutedExpertsError.of('ENGINE_DEAD', this.#deathReason);
    return this.#driver.resetPrefixCache(resetRunning);
  }

  stats(): EngineStats {
    return this.#core.stats();
  }

  /** Since the start, over all workers that there were. */
  transferCounts(): TransferCounts {
    return sum(this.#earlierTransfers, this.#executor?.transferCounts() ?? NOTHING_TRANSFERRED);
  }

  /** For tests: something goes wrong in a worker that runs. Rejects if the workers are gone. */
  injectFault(fault: WorkerFault): Promise<void> {
    return (this.#driver.executor as ThreadExecutor).inject(fault);
  }

  /** Asks the workers; rejects if they are gone. */
  workerLiveCounts(): Promise<WorkerLiveCounts> {
    return this.#driver.executor.liveCounts();
  }

  /** Ends what is still running, then the workers. Idempotent. */
  async close(): Promise<void> {
    this.#driver.abort([...this.#generations.keys()]);
    this.#driver.stop();
    await this.#running;
    this.kv?.close();
    await this.#session.close();
  }

  #announce(requests: readonly EngineRequest[], transfer: TransferParams): void {
    const { promptTokenIds, sampling } = requests[0]!;
    const rowsStart = sampling.returnRoutedExperts ? sampling.routedExpertsPromptStart : null;
    const ids = requests.map(({ requestId }) => requestId);
    this.kv!.announce(ids, transfer, promptTokenIds, rowsStart);
  }

  /**
   * Throws BAD_VALUE for a design that captures rows and cannot take over those that come with KV: it would compute
   * every prompt again.
   */
  #makeExchange(options: KvExchangeOptions, capture: CaptureEngineHalf | null): KvExchange {
    const { model, engine, design } = this.options;
    if (capture !== null && capture.acceptsExternalKv === undefined) {
      const wanted = 'deltas or off with --role: no other design takes over KV and its rows from another server';
      throw RoutedExpertsError.of('BAD_VALUE', '--design', design, wanted);
    }
    return new KvExchange(options, model, engine, (requestId, error) => {
      const choice = this.#generations.get(requestId)?.choiceOf(requestId);
      if (choice !== undefined && options.onLoadFailure === 'fail') {
        choice.failure = HttpError.of('KV_LOAD_FAILED', null, error.message);
      }
      this.#observer.onKvFailure(requestId, error);
    });
  }

  /** Rejects with CANNOT_LISTEN. */
  async #openExchange(): Promise<void> {
    const kv = this.options.kv;
    if (kv === null) return;
    const moves = new Limited(MOST_KV_MOVES);
    const engineSide: EngineSide = {
      finishLoad: (loadId, outcome) => this.#driver.finishLoad(loadId, outcome),
      releaseBlocks: (requestIndex) => this.#driver.releaseBlocks(requestIndex),
      readKv: (blockIds) => moves.run(() => this.#driver.executor.readKv(blockIds)),
      writeKv: (blockIds, keys) => moves.run(() => this.#driver.executor.writeKv(blockIds, keys)),
    };
    await this.kv!.open(engineSide).catch((error: Error) => {
      throw RoutedExpertsError.of('CANNOT_LISTEN', `${kv.host}:${kv.port}`, error.message);
    });
  }

  async #run(): Promise<void> {
    try {
      await this.#driver.run();
    } catch (error) {
      this.#deathReason = error instanceof Error ? error.message : String(error);
      this.#observer.onDeath(error);
    }
  }

  async #restart(loss: RoutedExpertsError): Promise<Executor> {
    this.#earlierTransfers = this.transferCounts();
    this.#executor = null;
    this.#lastLoss = loss.message;
    this.#observer.onLoss(loss);
    this.#executor = await this.#session.restart();
    this.#numRestarts++;
    this.#observer.onRestart();
    return this.#executor;
  }

  #onOutput(output: EngineCoreOutput): void {
    const generation = this.#generations.get(output.requestId);
    if (generation === undefined) return;
    if (output.finishReason !== null) this.#generations.delete(output.requestId);
    const kvTransfer = this.kv?.onOutput(output) ?? null;
    this.#observer.onOutput(generation.add(output, kvTransfer), output);
  }
}

function sessionConfig(options: EngineHostOptions): SessionConfig {
  const { numRanks, model, engine, device, adapter, queueDepth, ballastMs, router, prefixRows, epoch, fault } = options;
  const { draftAcceptanceRate, stepTimeoutMs } = options;
  return {
    numRanks,
    stepTimeoutMs,
    model,
    engine,
    device,
    adapter,
    queueDepth,
    ballastMs,
    ...(router === undefined ? {} : { router }),
    prefixRows,
    ...(draftAcceptanceRate === undefined ? {} : { draftAcceptanceRate }),
    fault,
    routing: epoch === 0 ? { kind: 'deterministic' } : { kind: 'nondeterministic', epoch },
  };
}

function sum(a: TransferCounts, b: TransferCounts): TransferCounts {
  return {
    deviceToHost: a.deviceToHost + b.deviceToHost,
    captureDeviceToHost: a.captureDeviceToHost + b.captureDeviceToHost,
    acrossThreads: a.acrossThreads + b.acrossThreads,
  };
}
