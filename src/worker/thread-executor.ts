/** Runs steps on worker threads: one piscina pool of one thread per rank. */

import { Piscina } from 'piscina';
import type { WorkerConfig } from '../contract/config.ts';
import type { DeviceInfo } from '../contract/device.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import { BytePool } from '../capture/byte-pool.ts';
import { rowShape } from '../capture/row-shape.ts';
import type { Executor, TransferCounts, WorkerLiveCounts } from './executor.ts';
import { moduleBeside } from './module-beside.ts';
import { outputMessageLength, readOutputMessage } from './output-message.ts';
import type { ExecuteReply, RankReply, RankTask } from './rank-protocol.ts';
import { stepMessageLength, writeStepMessage } from './step-message.ts';

/** Idle buffers kept for step messages: those in flight, and as many again. */
const IDLE_MESSAGES = 8;

type Rank = {
  readonly pool: Piscina;
  readonly returnedWords: ArrayBuffer[];
  readonly returnedRows: ArrayBuffer[];
  readbackBytes: ExecuteReply['readbackBytes'];
};

export class ThreadExecutor implements Executor {
  readonly devices: readonly DeviceInfo[];
  readonly #ranks: readonly Rank[];
  readonly #messages: BytePool = new BytePool(IDLE_MESSAGES);
  readonly #rowBytes: number;
  #acrossThreads = 0;
  #shutdown: Promise<void> | null = null;

  private constructor(ranks: readonly Rank[], devices: readonly DeviceInfo[], rowBytes: number) {
    this.#ranks = ranks;
    this.devices = devices;
    this.#rowBytes = rowBytes;
  }

  /** Starts one thread per rank and waits until each has its device. Rejects with the first rank's error; no thread is left then. */
  static async start(config: Omit<WorkerConfig, 'rank'>): Promise<ThreadExecutor> {
    const ranks = Array.from({ length: config.numRanks }, (_, rank) => startRank({ ...config, rank }));
    const started = await Promise.allSettled(ranks.map((rank, i) => ask(rank, i, { kind: 'start' }, [])));
    const devices: DeviceInfo[] = [];
    for (const result of started) {
      if (result.status === 'fulfilled' && result.value.kind === 'started') devices.push(result.value.device);
    }
    if (devices.length === ranks.length) return new ThreadExecutor(ranks, devices, rowShape(config.model).bytesPerRow);
    await stopRanks(ranks);
    const failed = started.find((result) => result.status === 'rejected');
    throw failed?.reason ?? RoutedExpertsError.of('INVARIANT', 'a rank did not start');
  }

  async execute(step: SchedulerOutput): Promise<ModelRunnerOutput> {
    const replies = this.#ranks.map((rank, i) => this.#dispatch(rank, i, step));
    // All ranks run in step, as collectives make them: the slowest one is the step. Rank 0 answers for all.
    const settled = await Promise.allSettled(replies);
    for (const result of settled) if (result.status === 'rejected') throw result.reason;
    const outputs = settled.map((result) => (result as PromiseFulfilledResult<ModelRunnerOutput>).value);
    for (const output of outputs.slice(1)) this.recycle(output);
    return outputs[0]!;
  }

  recycle(output: ModelRunnerOutput): void {
    const origin = origins.get(output);
    if (origin === undefined) return;
    origins.delete(output);
    origin.rank.returnedWords.push(origin.words);
    if (origin.rows !== null) origin.rank.returnedRows.push(origin.rows);
  }

  /** All ranks hold the same KV; rank 0 answers. */
  async readKv(blockIds: readonly number[]): Promise<Uint32Array> {
    const reply = await ask(this.#ranks[0]!, 0, { kind: 'read-kv', blockIds: Uint32Array.from(blockIds) }, []);
    if (reply.kind !== 'kv') throw RoutedExpertsError.of('INVARIANT', `read-kv answered ${reply.kind}`);
    this.#acrossThreads += reply.keys.byteLength;
    return reply.keys;
  }

  async writeKv(blockIds: readonly number[], keys: Uint32Array<ArrayBuffer>): Promise<void> {
    const ids = Uint32Array.from(blockIds);
    // Copied before the first is transferred, which leaves nothing to copy.
    const copies = this.#ranks.map((_, i) => (i === 0 ? keys : keys.slice()));
    this.#acrossThreads += copies.length * keys.byteLength;
    await Promise.all(
      this.#ranks.map((rank, i) =>
        ask(rank, i, { kind: 'write-kv', blockIds: ids, keys: copies[i]! }, [copies[i]!.buffer]),
      ),
    );
  }

  transferCounts(): TransferCounts {
    const sum = (part: 'all' | 'capture') => this.#ranks.reduce((bytes, rank) => bytes + rank.readbackBytes[part], 0);
    return { deviceToHost: sum('all'), captureDeviceToHost: sum('capture'), acrossThreads: this.#acrossThreads };
  }

  async liveCounts(): Promise<WorkerLiveCounts> {
    const all = await Promise.all(
      this.#ranks.map(async (rank, i) => {
        const reply = await ask(rank, i, { kind: 'counts' }, []);
        if (reply.kind !== 'counts') throw RoutedExpertsError.of('INVARIANT', `counts answered ${reply.kind}`);
        return reply.counts;
      }),
    );
    return all.reduce((a, b) => ({
      batchEntries: a.batchEntries + b.batchEntries,
      ringSlots: a.ringSlots + b.ringSlots,
      capture: { requests: a.capture.requests + b.capture.requests, bytes: a.capture.bytes + b.capture.bytes },
    }));
  }

  shutdown(): Promise<void> {
    this.#shutdown ??= stopRanks(this.#ranks);
    return this.#shutdown;
  }

  async #dispatch(rank: Rank, rankNumber: number, step: SchedulerOutput): Promise<ModelRunnerOutput> {
    const length = stepMessageLength(step);
    const message = this.#messages.take(length * 4);
    writeStepMessage(step, new Uint32Array(message));
    const returnedWords = rank.returnedWords.splice(0);
    const returnedRows = rank.returnedRows.splice(0);
    this.#acrossThreads += length * 4;
    const task: RankTask = { kind: 'execute', message, returnedWords, returnedRows };
    const reply = await ask(rank, rankNumber, task, [message, ...returnedWords, ...returnedRows]);
    if (reply.kind !== 'output') throw RoutedExpertsError.of('INVARIANT', `execute answered ${reply.kind}`);
    return this.#receive(rank, reply);
  }

  #receive(rank: Rank, reply: ExecuteReply): ModelRunnerOutput {
    this.#messages.give(reply.message);
    const output = readOutputMessage(new Uint32Array(reply.words), reply.rows);
    origins.set(output, { rank, words: reply.words, rows: reply.rows });
    rank.readbackBytes = reply.readbackBytes;
    this.#acrossThreads += outputMessageLength(output) * 4 + (output.routedExpertDeltas?.numRows ?? 0) * this.#rowBytes;
    return output;
  }
}

/** The buffers that an output's arrays are views of. */
const origins: WeakMap<
  ModelRunnerOutput,
  Readonly<{ rank: Rank; words: ArrayBuffer; rows: ArrayBuffer | null }>
> = new WeakMap();

function startRank(config: WorkerConfig): Rank {
  const pool = new Piscina({
    filename: moduleBeside(import.meta.url, 'rank.worker').href,
    minThreads: 1,
    maxThreads: 1,
    // Steps in flight, and places for tasks that ask, stop or move KV.
    concurrentTasksPerWorker: config.queueDepth + 4,
    // Steps that find no place must not be overtaken: the default puts them behind those that came later.
    stricterFIFO: true,
    // The default parks the thread in Atomics.wait between tasks, where a map never resolves.
    atomics: 'disabled',
    recordTiming: false,
    workerData: config,
  });
  return { pool, returnedWords: [], returnedRows: [], readbackBytes: { all: 0, capture: 0 } };
}

/** A pool is destroyed only after its thread has closed its device: a map pending at thread exit kills the process. */
async function stopRanks(ranks: readonly Rank[]): Promise<void> {
  await Promise.allSettled(ranks.map((rank, i) => ask(rank, i, { kind: 'stop' }, [])));
  await Promise.allSettled(ranks.map((rank) => rank.pool.destroy()));
}

async function ask(rank: Rank, rankNumber: number, task: RankTask, transferList: ArrayBuffer[]): Promise<RankReply> {
  let reply: RankReply;
  try {
    reply = (await rank.pool.run(task, { transferList })) as RankReply;
  } catch (error) {
    throw RoutedExpertsError.of('WORKER_LOST', rankNumber, error instanceof Error ? error.message : String(error));
  }
  if (reply.kind === 'failed') throw RoutedExpertsError.relayed(reply.code, reply.message);
  return reply;
}
