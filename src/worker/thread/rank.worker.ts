/**
 * Thread entry of one rank: builds its device and model runner, then serves the tasks of rank-protocol.ts, a task per
 * step.
 */

import { parentPort } from 'node:worker_threads';
import { move, transferableSymbol, valueSymbol, workerData } from 'piscina';
import { BytePool } from '../../capture/byte-pool.ts';
import type { WorkerConfig } from '../../contract/config.ts';
import type { Device } from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { openDevice } from '../../kernels/device/open-device.ts';
import { restBetweenLooks } from '../../kernels/device/polling.ts';
import { loadDesign } from '../design-module.ts';
import { designResources } from '../design-resources.ts';
import { FaultInjector } from '../fault-injector.ts';
import { ModelRunner } from '../model-runner.ts';
import { outputMessageLength, writeOutputMessage } from './output-message.ts';
import type { LossNotice, RankReply, RankTask } from './rank-protocol.ts';
import { RankMeter } from './rank-usage.ts';
import { kernelsOf } from '../router-kinds.ts';
import { readStepMessage } from './step-message.ts';

const config = workerData as WorkerConfig;

/** Idle buffers kept for outputs: those in flight, and as many again. */
const IDLE_WORDS = 8;

class RankWorker {
  readonly device: Device;
  readonly runner: ModelRunner;
  readonly faults: FaultInjector;
  /** Buffers that left with replies and have not come back. */
  numLent = 0;
  /** Of those, the bytes that hold rows. */
  #lentRowBytes = 0;
  #meter: RankMeter | null = null;
  readonly #words: BytePool = new BytePool(IDLE_WORDS);

  private constructor(device: Device, runner: ModelRunner) {
    this.device = device;
    this.runner = runner;
    this.faults = new FaultInjector(device);
    if (config.fault !== null && (config.fault.rank ?? 0) === config.rank) this.faults.arm(config.fault);
    void device.lost.then((reason) => {
      if (this.faults.isEnding) return;
      tellLoss({ code: 'DEVICE_LOST', message: RoutedExpertsError.of('DEVICE_LOST', reason).message });
    });
  }

  static async start(): Promise<RankWorker> {
    if (config.device === 'webgpu') restBetweenLooks();
    const device = await openDevice(config.device, config.adapter, config.clockTimes);
    try {
      const design = await loadDesign(config.design);
      const runner = await ModelRunner.create(device, config, kernelsOf(config), design, designResources(config));
      return new RankWorker(device, runner);
    } catch (error) {
      await device.destroy();
      throw error;
    }
  }

  async execute(task: RankTask & { kind: 'execute' }): Promise<RankReply & { kind: 'output' }> {
    for (const words of task.returnedWords) this.#words.give(words);
    for (const rows of task.returnedRows) {
      this.#lentRowBytes -= rows.byteLength;
      this.runner.recycle(rows);
    }
    this.numLent -= task.returnedWords.length + task.returnedRows.length;
    const step = readStepMessage(new Uint32Array(task.message));
    const fault = this.faults.onStep(step.stepId);
    if (fault !== null) await fault;
    const output = await this.runner.execute(step);
    const words = this.#words.take(outputMessageLength(output) * 4);
    writeOutputMessage(output, new Uint32Array(words));
    const rows = (output.routedExpertDeltas?.rows.buffer as ArrayBuffer | undefined) ?? null;
    this.numLent += rows === null ? 1 : 2;
    this.#lentRowBytes += rows?.byteLength ?? 0;
    this.#meter?.afterStep(step.totalNumScheduledTokens, this.#lentRowBytes, () => this.runner.captureCounts());
    return { kind: 'output', message: task.message, words, rows, readbackBytes: this.runner.readbackBytes() };
  }

  async takeUsage(): Promise<RankReply & { kind: 'usage' }> {
    this.#meter ??= new RankMeter(config.model);
    const usage = await this.#meter.take(this.runner.captureBufferBytes, this.runner.captureCounts());
    return { kind: 'usage', usage: { ...usage, deadlines: this.device.takeDeadlines?.() ?? null } };
  }
}

let worker: RankWorker | null = null;

// An exception outside any task would end the thread, and a map that is pending then would take the process along: the
// thread says that it is lost, and waits to be stopped. Rejections that nothing catches come here, too.
process.on('uncaughtException', (error) => {
  const { message } = RoutedExpertsError.of('WORKER_LOST', config.rank, describe(error));
  tellLoss({ code: 'WORKER_LOST', message });
});

function tellLoss(notice: LossNotice): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port, not a window
  parentPort!.postMessage(notice);
}

/** The one handler, so that piscina has it loaded before the first task and no task overtakes another on the way in. */
export default async function handle(task: RankTask): Promise<unknown> {
  try {
    const reply = await replyTo(task);
    return reply.kind === 'output' || reply.kind === 'kv' ? transferred(reply) : reply;
  } catch (error) {
    // An injected end is silent: no reply tells of the device that went first.
    if (worker?.faults.isEnding) return new Promise(() => {});
    return failure(error);
  }
}

async function replyTo(task: RankTask): Promise<RankReply> {
  if (task.kind === 'start') {
    worker = await RankWorker.start();
    return { kind: 'started', device: worker.device.info };
  }
  if (task.kind === 'stop') {
    await worker?.runner.close();
    return { kind: 'stopped' };
  }
  if (worker === null) throw RoutedExpertsError.of('INVARIANT', `${task.kind} before start`);
  const { runner, faults, numLent } = worker;
  if (task.kind === 'counts') return { kind: 'counts', counts: runner.liveCounts(), numLent };
  if (task.kind === 'take-usage') return worker.takeUsage();
  if (task.kind === 'take-passes') return { kind: 'passes', passes: runner.takePasses() };
  if (task.kind === 'arm-fault') {
    faults.arm(task.fault);
    return { kind: 'fault-armed' };
  }
  if (task.kind === 'execute') return worker.execute(task);
  if (task.kind === 'dummy') {
    await runner.runDummy();
    return { kind: 'dummy-run' };
  }
  const fault = faults.onKvMove();
  if (fault !== null) await fault;
  if (task.kind === 'read-kv') return { kind: 'kv', keys: await runner.readKv(task.blockIds) };
  await runner.writeKv(task.blockIds, task.keys);
  return { kind: 'kv-written' };
}

/** Marks the reply's buffers for transfer instead of a structured clone. */
function transferred(reply: RankReply & { kind: 'output' | 'kv' }): unknown {
  const buffers = reply.kind === 'kv' ? [reply.keys.buffer] : [reply.message, reply.words];
  if (reply.kind === 'output' && reply.rows !== null) buffers.push(reply.rows);
  return move({ [transferableSymbol]: buffers, [valueSymbol]: reply });
}

function failure(error: unknown): RankReply {
  if (error instanceof RoutedExpertsError) return { kind: 'failed', code: error.code, message: error.message };
  return { kind: 'failed', code: 'INVARIANT', message: describe(error) };
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
