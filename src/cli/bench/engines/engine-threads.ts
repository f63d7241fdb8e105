/** Data-parallel engines, each with an event loop of its own, and all their ranks in one lockstep group. */

import { Worker } from 'node:worker_threads';
import type { DesignReference } from '../../../contract/config.ts';
import type { DeviceInfo } from '../../../contract/device.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { SessionConfig } from '../../../host/design-session.ts';
import { settlesWithin } from '../../../worker/settles-within.ts';
import { moduleBeside } from '../../../worker/module-beside.ts';
import { isLoss } from '../../../worker/pipeline/loss.ts';
import { RankGrid } from '../../../worker/pipeline/lockstep/rank-grid.ts';
import { abandon } from '../../../worker/thread/abandoned-threads.ts';
import { mostShardWords, newLockstep } from '../../../worker/thread/shared-lockstep.ts';
import type { ServeOptions, ServeResult } from '../serve-workload.ts';
import type { BenchEngines, DataParallel } from './bench-engines.ts';
import type { EngineReply, EngineTask, EngineThreadConfig } from './engine-protocol.ts';
import { mergeServed, partsOf } from './parts.ts';

/** For the other engines to end after one has failed; one of them may stand still. */
const FAIL_TIMEOUT_MS = 5000;
/** A session gives its ranks 10 s to end. */
const CLOSE_TIMEOUT_MS = 15_000;

export class EngineThreads implements BenchEngines {
  readonly #threads: readonly EngineThread[];
  #devices: readonly DeviceInfo[] = [];

  private constructor(threads: readonly EngineThread[]) {
    this.#threads = threads;
  }

  /** `session.numRanks`: of each engine. */
  static async start(
    reference: DesignReference,
    session: SessionConfig,
    { size, dispatch }: DataParallel,
  ): Promise<EngineThreads> {
    const { numRanks, fault, collectiveTimeoutMs = 0 } = session;
    const grid = new RankGrid({ dataParallel: size, pipelineParallel: 1, tensorParallel: numRanks });
    const shardWords = dispatch === 'modular-shards' ? mostShardWords(session) : 0;
    const group = newLockstep(grid, { collectiveTimeoutMs, dispatch, shardWords });
    // A fault names its rank among all of them.
    const faultPlace = fault === null ? null : grid.placeOf(fault.rank ?? 0);
    const threads = Array.from({ length: size }, (_, engine) => {
      const own = faultPlace?.engine === engine ? { ...fault!, rank: faultPlace.tensorRank } : null;
      return new EngineThread({ reference, session: { ...session, fault: own, lockstep: { ...group, engine } } });
    });
    const engines = new EngineThreads(threads);
    try {
      engines.#devices = await startAll(threads, (session.gpus ?? []).length > 0);
      return engines;
    } catch (error) {
      await engines.close();
      throw error;
    }
  }

  get devices(): readonly DeviceInfo[] {
    return this.#devices;
  }

  async serve(options: Omit<ServeOptions, 'session'>): Promise<ServeResult> {
    const parts = partsOf(options, this.#threads.length);
    const served = await all(
      this.#threads.map((thread, i) => thread.ask({ kind: 'serve', options: parts[i]! }, 'served')),
    );
    return mergeServed(served.map(({ result }) => result));
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }
}

/** All at once; or one after the other, where the GPU that one selects holds for the process. */
async function startAll(threads: readonly EngineThread[], oneByOne: boolean): Promise<readonly DeviceInfo[]> {
  const start = (thread: EngineThread): Promise<EngineReply & { kind: 'started' }> =>
    thread.ask({ kind: 'start' }, 'started');
  const started: (EngineReply & { kind: 'started' })[] = [];
  if (!oneByOne) started.push(...(await all(threads.map(start))));
  else for (const thread of threads) started.push(await start(thread));
  return started.flatMap(({ devices }) => devices);
}

/** Asked one thing after the other. */
class EngineThread {
  readonly #worker: Worker;
  readonly #ended: Promise<void>;
  #settle: { resolve: (reply: EngineReply) => void; reject: (error: Error) => void } | null = null;

  constructor(config: EngineThreadConfig) {
    this.#worker = new Worker(moduleBeside(import.meta.url, 'engine.worker'), { workerData: config });
    this.#worker.on('message', (reply: EngineReply) => this.#settle?.resolve(reply));
    this.#worker.on('error', (error) =>
      this.#settle?.reject(error instanceof Error ? error : new Error(String(error))),
    );
    this.#ended = new Promise((resolve) => {
      this.#worker.once('exit', (code) => {
        this.#settle?.reject(RoutedExpertsError.of('ENGINE_DEAD', `its thread ended with exit code ${code}`));
        resolve();
      });
    });
  }

  async ask<K extends EngineReply['kind']>(task: EngineTask, wanted: K): Promise<EngineReply & { kind: K }> {
    const { promise, resolve, reject } = Promise.withResolvers<EngineReply>();
    this.#settle = { resolve, reject };
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    this.#worker.postMessage(task);
    const reply = await promise;
    if (reply.kind === 'failed') throw RoutedExpertsError.relayed(reply.code, reply.message);
    if (reply.kind !== wanted)
      throw RoutedExpertsError.of('INVARIANT', `${task.kind} was replied to with ${reply.kind}`);
    return reply as EngineReply & { kind: K };
  }

  /** A thread that does not end in time is abandoned. Never rejects. */
  async close(): Promise<void> {
    const closed = this.ask({ kind: 'close' }, 'closed').then(
      ({ isStuck }) => (isStuck ? abandon(this, this.#ended) : this.#ended),
      () => this.#ended,
    );
    if (!(await settlesWithin(CLOSE_TIMEOUT_MS, closed))) abandon(this, this.#ended);
  }
}

/**
 * Waits for every one; after the first failure only for a while. Rejects with the failure that says most: the loss of a
 * rank before that of an engine which heard of it.
 */
async function all<T>(asks: readonly Promise<T>[]): Promise<T[]> {
  const failures: unknown[] = [];
  const { promise: firstFailure, resolve } = Promise.withResolvers<void>();
  const note = (error: unknown): void => {
    failures.push(error);
    resolve();
  };
  const settled = Promise.all(asks.map((ask) => ask.catch(note)));
  await Promise.race([settled, firstFailure]);
  if (failures.length === 0) return Promise.all(asks);
  await settlesWithin(FAIL_TIMEOUT_MS, settled);
  throw failures.find(isLoss) ?? failures[0];
}
