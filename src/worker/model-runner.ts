/** Runs the scheduler's steps on a device, in order, several in flight: vLLM's GPUModelRunner. */

import type { CaptureWorkerHalf, DeviceRange } from '../contract/capture.ts';
import type { WorkerConfig } from '../contract/config.ts';
import type { Device, DeviceBuffer } from '../contract/device.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import type { Design, DesignResources } from '../capture/designs.ts';
import { ForwardPass } from '../kernels/forward-pass.ts';
import type { KernelSetFactory } from '../kernels/kernel-set.ts';
import type { WorkerLiveCounts } from './executor.ts';
import { KvBlocks } from './kv-blocks.ts';
import { ReadbackRing } from './readback-ring.ts';
import { emptyOutput, StepRunner } from './step-runner.ts';

/**
 * A step's life here: wait for the turn → a ring slot → begin → submit → pass the turn → map → collect. The turn is passed once the step is
 * submitted, so that the next one is encoded while this one runs. Where a step depends on the results of the one before (verified
 * drafts, or a design that blocks), the turn is passed at the end.
 */
export class ModelRunner {
  readonly #device: Device;
  readonly #steps: StepRunner;
  readonly #capture: CaptureWorkerHalf | null;
  readonly #ring: ReadbackRing;
  readonly #kv: KvBlocks;
  /** Where blocking reads land. */
  readonly #staging: DeviceBuffer | null;
  readonly #oneAtATime: boolean;
  /** Each pass folds its own number, or this one, into the keys that it writes. */
  readonly #hasEpochs: boolean;
  readonly #epoch: number | null;
  #turn: Promise<void> = Promise.resolve();
  #lostReason: string | null = null;
  #resultBytesRead = 0;
  #captureBytesRead = 0;

  private constructor(config: WorkerConfig, device: Device, forward: ForwardPass, capture: CaptureWorkerHalf | null) {
    const isBlocking = capture?.blockingReads !== undefined;
    this.#device = device;
    this.#capture = capture;
    this.#steps = new StepRunner(config.engine, device, forward, capture);
    this.#ring = new ReadbackRing(device, config.queueDepth + 1, this.#steps.maxResultBytes);
    this.#staging = isBlocking ? device.createBuffer('staging', forward.routedExperts.byteLength, 'readback') : null;
    this.#kv = new KvBlocks(device, forward.kvKeys, config.engine.blockSize);
    this.#hasEpochs = config.routing?.kind === 'nondeterministic';
    this.#epoch = config.routing?.kind === 'nondeterministic' ? (config.routing.epoch ?? null) : null;
    this.#oneAtATime = isBlocking || config.engine.numSpeculativeTokens > 0;
    void device.lost.then((reason) => (this.#lostReason = reason));
  }

  /** Allocates the device's buffers and compiles its kernels. Rejects with ROUTING_NOT_CAPTURED for a design whose rows nobody writes. */
  static async create(
    device: Device,
    config: WorkerConfig,
    kernels: KernelSetFactory,
    design: Design,
    resources: DesignResources,
  ): Promise<ModelRunner> {
    const { model, engine, ballastMs } = config;
    const forward = await ForwardPass.create(device, { model, engine, ballastMs, kernels });
    const { slotMapping, rows } = forward;
    if (rows === null && design.name !== 'off') throw RoutedExpertsError.of('ROUTING_NOT_CAPTURED', design.name);
    const capture =
      rows === null ? null : design.workerHalf({ device, model, engine, slotMapping, ...rows }, resources);
    return new ModelRunner(config, device, forward, capture);
  }

  /** Steps must be handed in in order; the outputs of those that run requests resolve in order. Rejects with DEVICE_LOST. */
  execute(step: SchedulerOutput): Promise<ModelRunnerOutput> {
    return this.#inTurn((passTurn) => this.#run(step, passTurn));
  }

  /** The KV of blocks as all steps handed in before leave it; see `KvBlocks`. Rejects with DEVICE_LOST. */
  readKv(blockIds: Uint32Array): Promise<Uint32Array<ArrayBuffer>> {
    return this.#inTurn((passTurn) => {
      const keys = this.#kv.read(blockIds);
      passTurn();
      return keys;
    });
  }

  /** Overwrites the KV of blocks, behind all steps handed in before and ahead of those handed in later. */
  writeKv(blockIds: Uint32Array, keys: Uint32Array): Promise<void> {
    return this.#inTurn(async () => this.#kv.write(blockIds, keys));
  }

  async #inTurn<T>(work: (passTurn: () => void) => Promise<T>): Promise<T> {
    const before = this.#turn;
    const { promise, resolve: passTurn } = Promise.withResolvers<void>();
    this.#turn = promise;
    await before;
    try {
      if (this.#lostReason !== null) throw RoutedExpertsError.of('DEVICE_LOST', this.#lostReason);
      return await work(passTurn);
    } catch (error) {
      throw this.#lostReason === null ? error : RoutedExpertsError.of('DEVICE_LOST', this.#lostReason);
    } finally {
      passTurn();
    }
  }

  /** Bytes read back from the device since the start: all of them, and those for capture. */
  readbackBytes(): Readonly<{ all: number; capture: number }> {
    return { all: this.#resultBytesRead + this.#captureBytesRead, capture: this.#captureBytesRead };
  }

  /** Takes back the rows of an output that was read. */
  recycle(rows: ArrayBuffer): void {
    this.#capture?.recycle(rows);
  }

  liveCounts(): Omit<WorkerLiveCounts, 'lentBuffers'> {
    return {
      batchEntries: this.#steps.numEntries,
      ringSlots: this.#ring.inUse,
      capture: this.#capture?.liveCounts() ?? { requests: 0, bytes: 0 },
    };
  }

  /** Waits for the steps in flight, then closes capture and device. */
  async close(): Promise<void> {
    await this.#turn;
    await this.#device.destroy();
    this.#capture?.close();
  }

  async #run(step: SchedulerOutput, passTurn: () => void): Promise<ModelRunnerOutput> {
    const slot = await this.#ring.acquire();
    try {
      const frame = this.#steps.begin(step, this.#hasEpochs ? (this.#epoch ?? step.stepId + 1) : 0);
      if (frame === null) return emptyOutput(step.stepId);
      const reads = this.#capture?.blockingReads;
      if (reads) await this.#readNow(reads.readBefore(frame.step), (b) => reads.takeBefore(frame.step, b));
      const resultBytes = this.#steps.submit(frame, slot);
      this.#resultBytesRead += frame.sampledBytes;
      this.#captureBytesRead += frame.rowBytes;
      if (!this.#oneAtATime) passTurn();
      if (reads) await this.#readNow(reads.readAfter(frame.step), (b) => reads.takeAfter(frame.step, b));
      return await this.#device.read(slot, resultBytes, (bytes) => this.#steps.collect(frame, bytes));
    } finally {
      this.#ring.release(slot);
    }
  }

  /** A blocking read: everything submitted before has run, and nothing is submitted until it returns. */
  async #readNow({ buffer, byteOffset, byteLength }: DeviceRange, take: (bytes: Uint8Array) => void): Promise<void> {
    const staging = this.#staging!;
    this.#device.submit((commands) => commands.copy(buffer, byteOffset ?? 0, staging, 0, byteLength));
    await this.#device.read(staging, byteLength, take);
    this.#captureBytesRead += byteLength;
  }
}
