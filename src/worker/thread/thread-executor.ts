/** Runs steps on worker threads, one per rank. */

import type { WorkerConfig, WorkerFault } from '../../contract/config.ts';
import type { DeviceInfo } from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';
import { selectGpu, type PciAddress } from '../../kernels/device/host-gpus.ts';
import { BytePool } from '../../capture/byte-pool.ts';
import { rowShape } from '../../capture/row-shape.ts';
import type { Executor, TransferCounts, WorkerLiveCounts } from '../executor.ts';
import { sumOfLiveCounts } from './live-counts.ts';
import { outputMessageLength, readOutputMessage } from './output-message.ts';
import type { RankPasses } from '../pipeline/lockstep/pass-times.ts';
import { groupOf } from './shared-lockstep.ts';
import { requireAgreement } from '../pipeline/rank-agreement.ts';
import type { ExecuteReply, RankReply, RankTask } from './rank-protocol.ts';
import { RankThread } from './rank-thread.ts';
import { sumOfUsage, type RankUsage } from './rank-usage.ts';
import { interleaved, RankStages } from './rank-stages.ts';
import { stepMessageLength, writeStepMessage } from './step-message.ts';

/** Idle buffers kept for step messages: those in flight, and as many again. */
const IDLE_MESSAGES = 8;
/** As vLLM's VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS. */
export const DEFAULT_STEP_TIMEOUT_MS = 300_000;

export type ThreadExecutorConfig = Omit<WorkerConfig, 'rank' | 'pipeline'> &
  Readonly<{
    /**
     * Layers of each pipeline stage, dense ones included; the ranks are shared out to the stages alike. Absent: each
     * rank has all layers.
     */
    pipelineSplit?: readonly number[];
    /** A worker that does not reply for this long is lost; 0 = never. Absent = `DEFAULT_STEP_TIMEOUT_MS`. */
    stepTimeoutMs?: number;
    /** Rank r, counted over all engines, runs on number r modulo theirs; absent or empty = all on the best. */
    gpus?: readonly PciAddress[];
  }>;

type Rank = {
  readonly thread: RankThread;
  /** Of a row, as far as the rank has its layers. */
  readonly rowBytes: number;
  readonly returnedWords: ArrayBuffer[];
  readonly returnedRows: ArrayBuffer[];
  readbackBytes: ExecuteReply['readbackBytes'];
};

export class ThreadExecutor implements Executor {
  readonly lost: Promise<RoutedExpertsError>;
  readonly #ranks: readonly Rank[];
  readonly #messages: BytePool = new BytePool(IDLE_MESSAGES);
  readonly #stages: RankStages | null;
  #devices: readonly DeviceInfo[] = [];
  #acrossThreads = 0;
  #shutdown: Promise<void> | null = null;

  private constructor({ stepTimeoutMs = DEFAULT_STEP_TIMEOUT_MS, pipelineSplit, ...config }: ThreadExecutorConfig) {
    this.#stages = pipelineSplit === undefined ? null : new RankStages(config, pipelineSplit);
    const { promise, resolve } = Promise.withResolvers<RoutedExpertsError>();
    this.lost = promise;
    // Without one rank no step completes: all others are given up with it.
    const onLost = (loss: RoutedExpertsError): void => {
      this.#stages?.close();
      const awaited = loss.code === 'COLLECTIVE_TIMEOUT' ? awaitedRanks(config) : [];
      for (const [rank, { thread }] of this.#ranks.entries()) {
        if (awaited.includes(rank)) thread.failStuck(loss);
        else thread.fail(loss);
      }
      resolve(loss);
    };
    this.#ranks = Array.from({ length: config.numRanks }, (_, rank) => ({
      thread: new RankThread({ config: this.#stages?.configOf(rank) ?? { ...config, rank }, stepTimeoutMs, onLost }),
      rowBytes: rowShape(this.#stages?.stageOf(rank).model ?? config.model).bytesPerRow,
      returnedWords: [],
      returnedRows: [],
      readbackBytes: { all: 0, capture: 0 },
    }));
  }

  /**
   * Starts one thread per rank and waits until each has its device. Rejects with the first rank's error; no thread is
   * left then, but those that are stuck.
   */
  static async start(config: ThreadExecutorConfig, select: typeof selectGpu = selectGpu): Promise<ThreadExecutor> {
    const executor = new ThreadExecutor(config);
    const started = await executor.#startRanks(config, select);
    const devices: DeviceInfo[] = [];
    for (const result of started) {
      if (result.status === 'fulfilled' && result.value.kind === 'started') devices.push(result.value.device);
    }
    executor.#devices = devices;
    if (devices.length === started.length) return executor;
    await executor.shutdown();
    const failed = started.find((result) => result.status === 'rejected');
    throw failed?.reason ?? RoutedExpertsError.of('INVARIANT', 'a rank did not start');
  }

  /** All at once; or, where each has a GPU of its own, one after the other: what is selected holds for the process. */
  async #startRanks(
    { gpus = [], lockstep, numRanks }: ThreadExecutorConfig,
    select: typeof selectGpu,
  ): Promise<PromiseSettledResult<RankReply>[]> {
    if (gpus.length === 0) return Promise.allSettled(this.#ranks.map(({ thread }) => thread.start()));
    const firstRank = (lockstep?.engine ?? 0) * numRanks;
    const started: PromiseSettledResult<RankReply>[] = [];
    for (const [rank, { thread }] of this.#ranks.entries()) {
      select(gpus[(firstRank + rank) % gpus.length]!);
      started.push(...(await Promise.allSettled([thread.start()])));
    }
    return started;
  }

  get devices(): readonly DeviceInfo[] {
    return this.#devices;
  }

  async execute(step: SchedulerOutput): Promise<ModelRunnerOutput> {
    // All ranks run in step, as collectives make them: the slowest one is the step. The output is that of rank 0, or of
    // the first rank of each stage.
    const length = stepMessageLength(step);
    const first = this.#messages.take(length * 4);
    writeStepMessage(step, new Uint32Array(first));
    // Copied before the first is transferred, which leaves nothing to copy.
    const messages = this.#ranks.map((_, i) => (i === 0 ? first : this.#copied(first, length)));
    this.#acrossThreads += messages.length * length * 4;
    const outputs = await all(this.#ranks.map((rank, i) => this.#dispatch(rank, messages[i]!)));
    if (this.#stages !== null) return this.#stages.join(outputs, (output) => this.recycle(output));
    requireAgreement(outputs);
    for (const output of outputs.slice(1)) this.recycle(output);
    return outputs[0]!;
  }

  async executeDummy(): Promise<void> {
    await all(this.#ranks.map((rank) => ask(rank, { kind: 'dummy' }, 'dummy-run')));
  }

  recycle(output: ModelRunnerOutput): void {
    const origin = origins.get(this.#stages?.takeApart(output) ?? output);
    if (origin === undefined) return;
    origins.delete(output);
    origin.rank.returnedWords.push(origin.words);
    if (origin.rows !== null) origin.rank.returnedRows.push(origin.rows);
  }

  /**
   * All ranks of a stage hold the same KV: that of the first is returned. With stages, for each block that of all of
   * them: `[blockIds.length, stages, blockSize, 2]`.
   */
  async readKv(blockIds: readonly number[]): Promise<Uint32Array> {
    const firsts = this.#stages === null ? [this.#ranks[0]!] : this.#stages.firstsOf(this.#ranks);
    const replies = await all(
      firsts.map((rank) => ask(rank, { kind: 'read-kv', blockIds: Uint32Array.from(blockIds) }, 'kv')),
    );
    for (const { keys } of replies) this.#acrossThreads += keys.byteLength;
    return interleaved(
      replies.map(({ keys }) => keys),
      blockIds.length,
    );
  }

  async writeKv(blockIds: readonly number[], keys: Uint32Array<ArrayBuffer>): Promise<void> {
    const ids = Uint32Array.from(blockIds);
    // Copied before the first is transferred, which leaves nothing to copy.
    const copies =
      this.#stages?.keysOfRanks(keys, blockIds.length) ?? this.#ranks.map((_, i) => (i === 0 ? keys : keys.slice()));
    this.#acrossThreads += copies.length * keys.byteLength;
    await all(
      this.#ranks.map((rank, i) =>
        ask(rank, { kind: 'write-kv', blockIds: ids, keys: copies[i]! }, 'kv-written', [copies[i]!.buffer]),
      ),
    );
  }

  transferCounts(): TransferCounts {
    const sum = (part: 'all' | 'capture') => this.#ranks.reduce((bytes, rank) => bytes + rank.readbackBytes[part], 0);
    return { deviceToHost: sum('all'), captureDeviceToHost: sum('capture'), acrossThreads: this.#acrossThreads };
  }

  async liveCounts(): Promise<WorkerLiveCounts> {
    const counts = await all(
      this.#ranks.map(async (rank) => {
        const { counts: worker, numLent } = await ask(rank, { kind: 'counts' }, 'counts');
        // What came back goes to the worker with the next step.
        const lentBuffers = numLent - rank.returnedWords.length - rank.returnedRows.length;
        return { ...worker, lentBuffers };
      }),
    );
    return sumOfLiveCounts(counts);
  }

  /** What all ranks have used since the last call; the first one begins to measure. Rejects if they are gone. */
  async takeUsage(): Promise<RankUsage> {
    const replies = await all(this.#ranks.map((rank) => ask(rank, { kind: 'take-usage' }, 'usage')));
    return sumOfUsage(replies.map(({ usage }) => usage));
  }

  /** What the passes of each rank took since the last call; `null`: the ranks are not in lockstep. */
  async takePasses(): Promise<readonly RankPasses[] | null> {
    const replies = await all(this.#ranks.map((rank) => ask(rank, { kind: 'take-passes' }, 'passes')));
    const passes = replies.map((reply) => reply.passes).filter((each) => each !== null);
    return passes.length === 0 ? null : passes;
  }

  /** For tests: something goes wrong in a worker that runs. */
  async inject(fault: WorkerFault): Promise<void> {
    await ask(this.#ranks[fault.rank ?? 0]!, { kind: 'arm-fault', fault }, 'fault-armed');
  }

  shutdown(): Promise<void> {
    this.#stages?.close();
    this.#shutdown ??= all(this.#ranks.map(({ thread }) => thread.stop())).then(() => {});
    return this.#shutdown;
  }

  #copied(message: ArrayBuffer, length: number): ArrayBuffer {
    const copy = this.#messages.take(length * 4);
    new Uint32Array(copy).set(new Uint32Array(message, 0, length));
    return copy;
  }

  async #dispatch(rank: Rank, message: ArrayBuffer): Promise<ModelRunnerOutput> {
    const returnedWords = rank.returnedWords.splice(0);
    const returnedRows = rank.returnedRows.splice(0);
    const task: RankTask = { kind: 'execute', message, returnedWords, returnedRows };
    return this.#receive(rank, await ask(rank, task, 'output', [message, ...returnedWords, ...returnedRows]));
  }

  #receive(rank: Rank, reply: ExecuteReply): ModelRunnerOutput {
    this.#messages.give(reply.message);
    const output = readOutputMessage(new Uint32Array(reply.words), reply.rows);
    origins.set(output, { rank, words: reply.words, rows: reply.rows });
    rank.readbackBytes = reply.readbackBytes;
    this.#acrossThreads += outputMessageLength(output) * 4 + (output.routedExpertDeltas?.numRows ?? 0) * rank.rowBytes;
    return output;
  }
}

/** Ranks of the engine that the others of their group wait for. */
function awaitedRanks({ lockstep, numRanks }: Pick<WorkerConfig, 'lockstep' | 'numRanks'>): readonly number[] {
  if (lockstep === undefined) return [];
  const { waitedAt } = groupOf(lockstep, numRanks);
  return waitedAt.absentRanks.map((rank) => rank - lockstep.engine * numRanks);
}

/** The buffers that an output's arrays are views of. */
const origins: WeakMap<
  ModelRunnerOutput,
  Readonly<{ rank: Rank; words: ArrayBuffer; rows: ArrayBuffer | null }>
> = new WeakMap();

async function ask<K extends RankReply['kind']>(
  { thread }: Rank,
  task: RankTask,
  wanted: K,
  transferList: ArrayBuffer[] = [],
): Promise<RankReply & { kind: K }> {
  const reply = await thread.ask(task, transferList);
  if (reply.kind !== wanted) throw RoutedExpertsError.of('INVARIANT', `${task.kind} was replied to with ${reply.kind}`);
  return reply as RankReply & { kind: K };
}

/** Waits for every one, then rejects with the first rejection there is: no work of a call outlives it. */
async function all<T>(works: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(works);
  return settled.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}
