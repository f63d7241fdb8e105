/** Thread entry of one rank: builds its device and model runner, then serves the tasks of rank-protocol.ts, a task per step. */

import { move, transferableSymbol, valueSymbol, workerData } from 'piscina';
import { BytePool } from '../capture/byte-pool.ts';
import { designByName } from '../capture/designs.ts';
import type { WorkerConfig, WorkerFault } from '../contract/config.ts';
import type { Device } from '../contract/device.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { openDevice } from '../kernels/open-device.ts';
import { designResources } from './design-resources.ts';
import { ModelRunner } from './model-runner.ts';
import { outputMessageLength, writeOutputMessage } from './output-message.ts';
import type { RankReply, RankTask } from './rank-protocol.ts';
import { kernelsOf } from './router-kinds.ts';
import { readStepMessage } from './step-message.ts';

const config = workerData as WorkerConfig;

/** Idle buffers kept for outputs: those in flight, and as many again. */
const IDLE_WORDS = 8;

class RankWorker {
  readonly device: Device;
  readonly runner: ModelRunner;
  readonly #words: BytePool = new BytePool(IDLE_WORDS);

  private constructor(device: Device, runner: ModelRunner) {
    this.device = device;
    this.runner = runner;
  }

  static async start(): Promise<RankWorker> {
    const device = await openDevice(config.device, config.adapter);
    try {
      const design = designByName(config.design);
      const runner = await ModelRunner.create(device, config, kernelsOf(config), design, designResources(config));
      return new RankWorker(device, runner);
    } catch (error) {
      await device.destroy();
      throw error;
    }
  }

  async execute(task: RankTask & { kind: 'execute' }): Promise<RankReply & { kind: 'output' }> {
    for (const words of task.returnedWords) this.#words.give(words);
    for (const rows of task.returnedRows) this.runner.recycle(rows);
    const step = readStepMessage(new Uint32Array(task.message));
    if (step.stepId === config.fault?.stepId) await this.#inject(config.fault);
    const output = await this.runner.execute(step);
    const words = this.#words.take(outputMessageLength(output) * 4);
    writeOutputMessage(output, new Uint32Array(words));
    const rows = (output.routedExpertDeltas?.rows.buffer as ArrayBuffer | undefined) ?? null;
    return { kind: 'output', message: task.message, words, rows, readbackBytes: this.runner.readbackBytes() };
  }

  async #inject({ kind }: WorkerFault): Promise<void> {
    // A map that is pending when the thread ends takes the process along, so the device goes first in both cases.
    await this.device.destroy();
    if (kind === 'exit-thread') process.exit(1);
  }
}

let worker: RankWorker | null = null;

/** The one handler, so that piscina has it loaded before the first task and no task overtakes another on the way in. */
export default async function handle(task: RankTask): Promise<unknown> {
  try {
    const reply = await answer(task);
    return reply.kind === 'output' || reply.kind === 'kv' ? transferred(reply) : reply;
  } catch (error) {
    return failure(error);
  }
}

async function answer(task: RankTask): Promise<RankReply> {
  if (task.kind === 'start') {
    worker = await RankWorker.start();
    return { kind: 'started', device: worker.device.info };
  }
  if (task.kind === 'stop') {
    await worker?.runner.close();
    return { kind: 'stopped' };
  }
  if (worker === null) throw RoutedExpertsError.of('WORKER_LOST', config.rank, 'its thread was replaced');
  if (task.kind === 'counts') return { kind: 'counts', counts: worker.runner.liveCounts() };
  if (task.kind === 'read-kv') return { kind: 'kv', keys: await worker.runner.readKv(task.blockIds) };
  if (task.kind === 'write-kv') {
    await worker.runner.writeKv(task.blockIds, task.keys);
    return { kind: 'kv-written' };
  }
  return worker.execute(task);
}

/** Marks the reply's buffers for transfer instead of a structured clone. */
function transferred(reply: RankReply & { kind: 'output' | 'kv' }): unknown {
  const buffers = reply.kind === 'kv' ? [reply.keys.buffer] : [reply.message, reply.words];
  if (reply.kind === 'output' && reply.rows !== null) buffers.push(reply.rows);
  return move({ [transferableSymbol]: buffers, [valueSymbol]: reply });
}

function failure(error: unknown): RankReply {
  if (error instanceof RoutedExpertsError) return { kind: 'failed', code: error.code, message: error.message };
  const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { kind: 'failed', code: 'INVARIANT', message: what };
}
