/**
 * An engine core on the workers of a session, from its first step to its end: requests in, outputs out, and new workers
 * where some are lost. The library, the server, the bench and the tests run their engines with it.
 */

import type { WorkerFault } from '../contract/config.ts';
import type { EngineCoreOutput } from '../contract/engine-core-output.ts';
import type { DeviceInfo } from '../contract/device.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { KvConnector, KvLoadOutcome } from '../contract/kv-connector.ts';
import type { EngineRequest } from '../contract/request.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import { EngineCore, type EngineStats } from '../engine/engine-core.ts';
import { EngineDriver, type StepTiming } from '../worker/engine-driver.ts';
import type { Executor, TransferCounts, WorkerLiveCounts } from '../worker/executor.ts';
import { Sha256BlockHasher } from '../engine/kv/sha256-block-hasher.ts';
import type { DesignSession } from './design-session.ts';
import { KvOffload, type OffloadStats } from './kv-tier/kv-offload.ts';

/** Listeners are called between two steps, and must be quick. */
export type LiveEngineOptions = Readonly<{
  onOutput: (output: EngineCoreOutput) => void;
  /** A step is handed to the workers. */
  onBegin?: (step: SchedulerOutput) => void;
  /** The output of a step was taken in. */
  onStep?: (timing: StepTiming) => void;
  /** Workers were lost, and new ones are being started. */
  onLoss?: (loss: RoutedExpertsError) => void;
  onRestart?: () => void;
  /** The engine has stopped for good, before it was told to. */
  onDeath?: (error: unknown) => void;
  /** How often lost workers are started again; absent = a loss is final. */
  maxRestarts?: number;
  /** Where KV comes from and goes to; absent or `null` = nowhere. */
  connector?: KvConnector | null;
  /** Something is wrong with the tier's files: told once, and each block is a miss. */
  onOffloadProblem?: (message: string) => void;
}>;

/** What became of the workers so far. `lastLoss`: why they were last lost. */
export type WorkersState = Readonly<{ isRestarting: boolean; numRestarts: number; lastLoss: string | null }>;

const NOTHING_TRANSFERRED: TransferCounts = { deviceToHost: 0, captureDeviceToHost: 0, acrossThreads: 0 };

export class LiveEngine {
  /** Whether rows can be taken over that come with KV from elsewhere. */
  readonly takesExternalKv: boolean;
  readonly #session: DesignSession;
  readonly #core: EngineCore;
  readonly #driver: EngineDriver;
  readonly #options: LiveEngineOptions;
  readonly #offload: KvOffload | null;
  readonly #running: Promise<void>;
  #deathReason: string | null = null;
  /** What the engine died of. */
  #death: Readonly<{ error: unknown }> | null = null;
  #workers: WorkersState = { isRestarting: false, numRestarts: 0, lastLoss: null };
  /** By workers that are gone. */
  #earlierTransfers: TransferCounts = NOTHING_TRANSFERRED;

  /** It runs from here on. One engine at a time on a session. */
  constructor(session: DesignSession, options: LiveEngineOptions) {
    const { engine, queueDepth } = session.config;
    const { maxRestarts = 0, onOutput, onBegin, onStep, connector = null } = options;
    const capture = session.engineHalf();
    this.takesExternalKv = capture === null || capture.acceptsExternalKv !== undefined;
    this.#session = session;
    this.#options = options;
    this.#offload = this.#makeOffload();
    // Names of files want a hash that nobody can forge.
    const hasher = (session.config.kvOffload?.dir ?? null) === null ? {} : { hasher: new Sha256BlockHasher() };
    this.#core = new EngineCore(engine, capture, { connector: this.#offload ?? connector, ...hasher });
    this.#driver = new EngineDriver({
      engine: this.#core,
      executor: session.executor,
      queueDepth,
      maxRestarts,
      restart: (loss) => this.#restart(loss),
      group: session.group,
      onOutput,
      ...(onBegin === undefined ? {} : { onBegin }),
      ...(onStep === undefined ? {} : { onStep }),
    });
    this.#running = this.#run();
  }

  /** One device per rank. */
  get devices(): readonly DeviceInfo[] {
    return this.#session.executor.devices;
  }

  /** Why there will be no more outputs, or `null`. */
  get deathReason(): string | null {
    return this.#deathReason;
  }

  get workers(): WorkersState {
    return this.#workers;
  }

  /** Throws what `EngineCore.addRequest` throws, and ENGINE_DEAD. */
  add(request: EngineRequest): void {
    this.#requireLife();
    this.#driver.add(request);
  }

  /** Ends requests at once; their last outputs come before it returns. Unknown ids are ignored. */
  abort(requestIds: readonly string[]): void {
    this.#driver.abort(requestIds);
  }

  /**
   * Forgets every cached prefix. With `resetRunning` all running requests are preempted and computed again. `false`:
   * nothing has happened, since blocks are held. Throws ENGINE_DEAD.
   */
  resetPrefixCache(resetRunning: boolean): boolean {
    this.#requireLife();
    return this.#driver.resetPrefixCache(resetRunning);
  }

  /** No step begins before `resume`; those in flight are finished. Requests may still be added and aborted. */
  pause(): void {
    this.#driver.pause();
  }

  resume(): void {
    this.#driver.resume();
  }

  /** See `EngineCore.finishLoad`. */
  finishLoad(loadId: number, outcome: KvLoadOutcome): void {
    this.#driver.finishLoad(loadId, outcome);
  }

  /** See `EngineCore.releaseBlocks`. */
  releaseBlocks(requestIndex: number): void {
    this.#driver.releaseBlocks(requestIndex);
  }

  /** See `Executor.readKv`. */
  readKv(blockIds: readonly number[]): Promise<Uint32Array> {
    return this.#session.executor.readKv(blockIds);
  }

  /** See `Executor.writeKv`. */
  writeKv(blockIds: readonly number[], keys: Uint32Array<ArrayBuffer>): Promise<void> {
    return this.#session.executor.writeKv(blockIds, keys);
  }

  /** What the engine core holds and has done. */
  stats(): EngineStats {
    return this.#core.stats();
  }

  /** What the tier of evicted blocks holds and has done; `null`: there is none. */
  offloadStats(): OffloadStats | null {
    return this.#offload?.stats() ?? null;
  }

  /** By all workers that there were. */
  transferCounts(): TransferCounts {
    const now = this.#workers.isRestarting ? NOTHING_TRANSFERRED : this.#session.executor.transferCounts();
    return sum(this.#earlierTransfers, now);
  }

  /** What the workers hold; all 0 when nothing runs. Rejects if they are gone. */
  workerLiveCounts(): Promise<WorkerLiveCounts> {
    return this.#session.executor.liveCounts();
  }

  /** For tests: something goes wrong in a worker that runs. Rejects if the workers are gone. */
  injectFault(fault: WorkerFault): Promise<void> {
    return this.#session.executor.inject(fault);
  }

  /** Resolves when the engine has ended, with the reason. */
  async whyDead(): Promise<string> {
    await this.#running;
    return this.#deathReason!;
  }

  /** Lets the engine end once everything that was added has run to its end. */
  drain(): void {
    this.#driver.stop();
  }

  /** Resolves when the engine has ended. Rejects with what it died of. */
  async ended(): Promise<void> {
    await this.#running;
    if (this.#death !== null) throw this.#death.error;
  }

  /** Ends what still runs at once, and resolves when no step is in flight. Never rejects. The session stays open. */
  async stop(): Promise<void> {
    this.#driver.abort(this.#core.requestIds);
    this.#driver.stop();
    await this.#running;
    await this.#offload?.settled();
  }

  #makeOffload(): KvOffload | null {
    const { kvOffload } = this.#session.config;
    if (kvOffload === undefined || kvOffload.hostBlocks === 0) return null;
    const { connector = null, onOffloadProblem = (message) => void process.stderr.write(`${message}\n`) } =
      this.#options;
    if (connector !== null) {
      const wanted = 'none with a KV connector: an engine that shares KV with others keeps none of its own';
      throw RoutedExpertsError.of('BAD_VALUE', 'kvOffload', kvOffload.hostBlocks, wanted);
    }
    const engine = {
      finishLoad: (loadId: number, outcome: KvLoadOutcome) => this.finishLoad(loadId, outcome),
      readKv: (blockIds: readonly number[]) => this.readKv(blockIds),
      writeKv: (blockIds: readonly number[], keys: Uint32Array<ArrayBuffer>) => this.writeKv(blockIds, keys),
    };
    return new KvOffload(kvOffload, this.#session.config, engine, onOffloadProblem);
  }

  #requireLife(): void {
    if (this.#deathReason !== null) throw RoutedExpertsError.of('ENGINE_DEAD', this.#deathReason);
  }

  async #run(): Promise<void> {
    try {
      await this.#driver.run();
      this.#deathReason = 'it was closed';
    } catch (error) {
      this.#death = { error };
      this.#deathReason = error instanceof Error ? error.message : String(error);
      this.#options.onDeath?.(error);
    }
  }

  async #restart(loss: RoutedExpertsError): Promise<Executor> {
    this.#earlierTransfers = this.transferCounts();
    this.#workers = { ...this.#workers, isRestarting: true, lastLoss: loss.message };
    this.#options.onLoss?.(loss);
    const executor = await this.#session.restart();
    this.#workers = { ...this.#workers, isRestarting: false, numRestarts: this.#workers.numRestarts + 1 };
    this.#options.onRestart?.();
    return executor;
  }
}

function sum(a: TransferCounts, b: TransferCounts): TransferCounts {
  return {
    deviceToHost: a.deviceToHost + b.deviceToHost,
    captureDeviceToHost: a.captureDeviceToHost + b.captureDeviceToHost,
    acrossThreads: a.acrossThreads + b.acrossThreads,
  };
}
