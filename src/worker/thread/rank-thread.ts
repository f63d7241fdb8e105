/** The worker thread of one rank: a piscina pool of one thread, all of whose ways to fail are one event. */

import { Piscina } from 'piscina';
import type { WorkerConfig } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { abandon } from './abandoned-threads.ts';
import { isLoss } from '../pipeline/loss.ts';
import { settlesWithin } from '../settles-within.ts';
import { moduleBeside } from '../module-beside.ts';
import type { LossNotice, RankReply, RankTask } from './rank-protocol.ts';

/** Opening a device and compiling its kernels may take this long, however short the time for a step is. */
const START_TIMEOUT_MS = 300_000;
/** A thread that is asked to stop finishes the steps that its device runs; one that takes longer is abandoned. */
const STOP_TIMEOUT_MS = 10_000;

export type RankThreadOptions = Readonly<{
  config: WorkerConfig;
  /** The longest time that the oldest ask may stay without a reply; 0 = no limit. */
  stepTimeoutMs: number;
  /** Called once, with DEVICE_LOST or WORKER_LOST, unless the thread is being stopped. */
  onLost: (loss: RoutedExpertsError) => void;
}>;

/**
 *     running ──▶ failed ──▶ stopped
 *                    └──▶ abandoned ──▶ stopped
 *
 * Whatever the thread does (it ends, throws outside a task, loses its device, does not reply) leads to `failed`: every
 * ask in flight rejects at once, and so does every later one. A thread that is stuck is abandoned, never terminated,
 * since a pending map would take the process along; when it returns, it closes its device and is stopped.
 */
export class RankThread {
  readonly #options: RankThreadOptions;
  readonly #pool: Piscina;
  /** Ways to reject the asks in flight, oldest first. */
  readonly #asks: Map<number, (error: RoutedExpertsError) => void> = new Map();
  #numAsked = 0;
  #watchdog: NodeJS.Timeout | null = null;
  #failure: RoutedExpertsError | null = null;
  #hasEnded = false;
  #isStuck = false;
  #stopped: Promise<void> | null = null;

  constructor(options: RankThreadOptions) {
    this.#options = options;
    const { config } = options;
    this.#pool = new Piscina({
      filename: moduleBeside(import.meta.url, 'rank.worker').href,
      // The first ask starts the thread, and nothing replaces it: a new thread would know nothing of the rank's state.
      minThreads: 0,
      maxThreads: 1,
      idleTimeout: Infinity,
      // Steps in flight, a KV read ahead of each, and places for tasks that ask, stop or write KV.
      concurrentTasksPerWorker: 2 * config.queueDepth + 4,
      // Steps that find no place must not be overtaken: the default puts them behind those that came later.
      stricterFIFO: true,
      // The default parks the thread in Atomics.wait between tasks, where a map never resolves.
      atomics: 'disabled',
      recordTiming: false,
      workerData: config,
    });
    // Without a listener these end the process. They come for a reply that was on its way when the thread ended, too.
    this.#pool.on('error', (error: Error) => this.#lose(error.message));
    this.#pool.on('message', ({ code, message }: LossNotice) =>
      this.#onLoss(RoutedExpertsError.relayed(code, message)),
    );
  }

  /** Resolves with the reply to `start`. Rejects with what keeps the rank from starting. */
  async start(): Promise<RankReply> {
    const { stepTimeoutMs } = this.#options;
    const started = this.ask({ kind: 'start' });
    this.#pool.threads[0]!.once('exit', (code) => {
      this.#hasEnded = true;
      this.#lose(`its thread ended with exit code ${code}`);
    });
    if (stepTimeoutMs === 0) return started;
    const startTimeoutMs = Math.max(START_TIMEOUT_MS, stepTimeoutMs);
    const timer = setTimeout(() => this.#loseStuck(startTimeoutMs), startTimeoutMs).unref();
    try {
      const reply = await started;
      // `refresh` starts it again with every ask that becomes the oldest.
      this.#watchdog = setTimeout(() => this.#onSilence(), stepTimeoutMs).unref();
      return reply;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Rejects with DEVICE_LOST or WORKER_LOST once the rank has failed, or with the error that the task ended with. */
  async ask(task: RankTask, transferList: ArrayBuffer[] = []): Promise<RankReply> {
    if (this.#failure !== null) throw this.#failure;
    const reply = await this.#send(task, transferList);
    if (reply.kind !== 'failed') return reply;
    const error = RoutedExpertsError.relayed(reply.code, reply.message);
    if (isLoss(error)) this.#onLoss(error);
    throw error;
  }

  /** Rejects what is in flight and what will be asked. The thread itself goes on until it is stopped. */
  fail(failure: RoutedExpertsError): void {
    if (this.#failure !== null) return;
    this.#failure = failure;
    if (this.#watchdog !== null) clearTimeout(this.#watchdog);
    for (const reject of this.#asks.values()) reject(failure);
    this.#asks.clear();
  }

  /** As `fail`, of a thread that stands still: it is not waited for. */
  failStuck(failure: RoutedExpertsError): void {
    this.#isStuck = true;
    this.fail(failure);
  }

  /** Resolves when the thread has closed its device and ended, or is abandoned. Idempotent. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.fail(this.#lossOf('it was stopped'));
    if (this.#hasEnded) return;
    // A map that is pending when the thread ends takes the process along: the pool is destroyed only after the device.
    const ended = this.#pool.run({ kind: 'stop' }).then(
      () => this.#pool.destroy(),
      () => this.#pool.destroy(),
    );
    if (!this.#isStuck && (await settlesWithin(STOP_TIMEOUT_MS, ended))) return;
    abandon(this, ended);
  }

  #send(task: RankTask, transferList: ArrayBuffer[]): Promise<RankReply> {
    const id = this.#numAsked++;
    const { promise, resolve, reject } = Promise.withResolvers<RankReply>();
    if (this.#asks.size === 0) this.#watchdog?.refresh();
    this.#asks.set(id, reject);
    this.#pool.run(task, { transferList }).then(
      (reply: RankReply) => {
        this.#settle(id);
        resolve(reply);
      },
      (error: Error) => {
        this.#lose(error.message);
        reject(this.#failure);
      },
    );
    return promise;
  }

  #settle(id: number): void {
    const [oldest] = this.#asks.keys();
    this.#asks.delete(id);
    if (id === oldest) this.#watchdog?.refresh();
  }

  #onSilence(): void {
    const [oldest] = this.#asks.keys();
    if (oldest === undefined) return;
    // If this thread stood still itself, the reply lies in the port, and is read before the next turn.
    setImmediate(() => {
      if (this.#asks.has(oldest)) this.#loseStuck(this.#options.stepTimeoutMs);
    });
  }

  #loseStuck(timeoutMs: number): void {
    this.#isStuck = true;
    this.#lose(`it is stuck: no reply within ${timeoutMs / 1e3} s (--step-timeout, stepTimeoutMs)`);
  }

  #lose(reason: string): void {
    this.#onLoss(this.#lossOf(reason));
  }

  #lossOf(reason: string): RoutedExpertsError {
    const { rank, numRanks, lockstep } = this.#options.config;
    return RoutedExpertsError.of('WORKER_LOST', (lockstep?.engine ?? 0) * numRanks + rank, reason);
  }

  #onLoss(loss: RoutedExpertsError): void {
    if (this.#failure !== null) return;
    this.fail(loss);
    this.#options.onLost(loss);
  }
}
