/** Runs the scheduler's steps on a device: vLLM's GPUModelRunner. */

import type { CaptureWorkerHalf, DeviceRange } from '../contract/capture.ts';
import type { WorkerConfig } from '../contract/config.ts';
import type { Device } from '../contract/device.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import { PLACEHOLDER_TOKEN } from '../contract/scheduler-output.ts';
import type { Design, DesignResources } from '../capture/designs.ts';
import { ForwardPass } from '../kernels/forward-pass.ts';
import type { KernelSetFactory } from '../kernels/kernel-set.ts';
import { FROM_DEVICE, StepInput } from '../kernels/step-input.ts';
import type { WorkerLiveCounts } from './executor.ts';
import type { BatchEntry } from './persistent-batch.ts';
import { PersistentBatch } from './persistent-batch.ts';
import { ReadbackRing } from './readback-ring.ts';
import type { StepFrame } from './step-frame.ts';
import { StepFrames } from './step-frame.ts';

/**
 * A step's life here: wait for the turn → forget, admit → upload → forward pass, capture and copies in one command buffer → pass the turn
 * → map → collect. Steps pass the turn once submitted, so that the next one is encoded while this one runs. Where a step depends on the
 * results of the one before (verified drafts, or a design that blocks), the turn is passed at the end.
 */
export class ModelRunner {
  readonly #config: WorkerConfig;
  readonly #device: Device;
  readonly #forward: ForwardPass;
  readonly #input: StepInput;
  readonly #capture: CaptureWorkerHalf | null;
  readonly #batch: PersistentBatch;
  readonly #frames: StepFrames;
  readonly #ring: ReadbackRing;
  readonly #oneAtATime: boolean;
  #turn: Promise<void> = Promise.resolve();
  #lostReason: string | null = null;
  #sampledBytesRead = 0;

  private constructor(config: WorkerConfig, device: Device, forward: ForwardPass, capture: CaptureWorkerHalf | null) {
    this.#config = config;
    this.#device = device;
    this.#forward = forward;
    this.#input = new StepInput(forward.shape);
    this.#capture = capture;
    this.#batch = new PersistentBatch(config.engine, forward.shape.maxBlocksPerSeq);
    this.#frames = new StepFrames(config.engine);
    const slotBytes = forward.sampled.byteLength + forward.pack.packed.byteLength;
    this.#ring = new ReadbackRing(device, config.queueDepth + 1, slotBytes);
    this.#oneAtATime = capture?.blocking === true || config.engine.numSpeculativeTokens > 0;
    void device.lost.then((reason) => (this.#lostReason = reason));
  }

  /** Allocates the device's buffers and compiles its kernels. */
  static async create(
    device: Device,
    config: WorkerConfig,
    kernels: KernelSetFactory,
    design: Design,
    resources: DesignResources,
  ): Promise<ModelRunner> {
    const { model, engine, ballastMs } = config;
    const forward = await ForwardPass.create(device, { model, engine, ballastMs, kernels });
    const { routedExperts, slotMapping, pack } = forward;
    const capture = design.workerHalf({ device, model, engine, routedExperts, slotMapping, pack }, resources);
    return new ModelRunner(config, device, forward, capture);
  }

  /** Steps must be handed in in order; their outputs resolve in order. Rejects with DEVICE_LOST. */
  async execute(step: SchedulerOutput): Promise<ModelRunnerOutput> {
    const before = this.#turn;
    const { promise, resolve: passTurn } = Promise.withResolvers<void>();
    this.#turn = promise;
    await before;
    try {
      return await this.#run(step, passTurn);
    } catch (error) {
      throw this.#lostReason === null ? error : RoutedExpertsError.of('DEVICE_LOST', this.#lostReason);
    } finally {
      passTurn();
    }
  }

  /** Bytes read back from the device since the start: all of them, and those that capture asked for. */
  readbackBytes(): Readonly<{ all: number; capture: number }> {
    const all = this.#device.bytesRead;
    return { all, capture: all - this.#sampledBytesRead };
  }

  /** Takes back the rows of an output that was read. */
  recycle(rows: ArrayBuffer): void {
    this.#capture?.recycle(rows);
  }

  liveCounts(): WorkerLiveCounts {
    return {
      batchEntries: this.#batch.size,
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
    if (this.#lostReason !== null) throw RoutedExpertsError.of('DEVICE_LOST', this.#lostReason);
    const gone = this.#batch.forget(step);
    this.#capture?.forget(gone);
    if (step.numRequests === 0) return emptyOutput(step.stepId);

    const slot = await this.#ring.acquire();
    const frame = this.#frames.take();
    try {
      this.#prepare(step, frame);
      if (this.#capture?.blocking) await this.#capture.beforeForward(frame.step);
      const sampledBytes = this.#forward.sampledLayout.byteLength(step.numRequests);
      let rows: DeviceRange | null = null;
      this.#device.submit((commands) => {
        this.#forward.record(commands, this.#input);
        rows = this.#capture?.record(frame.step, commands) ?? null;
        commands.copy(this.#forward.sampled, 0, slot, 0, sampledBytes);
        if (rows !== null) commands.copy(rows.buffer, 0, slot, sampledBytes, rows.byteLength);
      });
      if (!this.#oneAtATime) passTurn();
      if (this.#capture?.blocking) await this.#capture.afterForward(frame.step);
      const rowBytes = (rows as DeviceRange | null)?.byteLength ?? 0;
      this.#sampledBytesRead += sampledBytes;
      return await this.#device.read(slot, sampledBytes + rowBytes, (bytes) =>
        this.#collect(frame, bytes, sampledBytes, rowBytes),
      );
    } finally {
      this.#frames.give(frame);
      this.#ring.release(slot);
    }
  }

  /** Fills the frame and the device's step input; requests run in the order of their batch slots. */
  #prepare(step: SchedulerOutput, frame: StepFrame): void {
    const input = this.#input;
    const { step: out, order } = frame;
    const n = step.numRequests;
    input.begin(step.totalNumScheduledTokens, n, step.newBlockOffsets[n]!);
    this.#batch.admit(step, (batchSlot, blockOrdinal, blockId) =>
      input.addTableUpdate(batchSlot, blockOrdinal, blockId),
    );
    const entries = Array.from({ length: n }, (_, i) => this.#batch.get(step.requestIndices[i]!));
    for (let i = 0; i < n; i++) order[i] = i;
    order.subarray(0, n).sort((a, b) => entries[a]!.slot - entries[b]!.slot);

    out.stepId = step.stepId;
    out.numRequests = n;
    out.numTokens = step.totalNumScheduledTokens;
    for (let i = 0; i < n; i++) this.#addRequest(step, order[i]!, entries[order[i]!]!, frame, i);
    input.end();
    this.#forward.upload(input);
    out.slotMapping.set(input.slotMapping.subarray(0, out.numTokens));
  }

  #addRequest(step: SchedulerOutput, position: number, entry: BatchEntry, { step: out }: StepFrame, i: number): void {
    const input = this.#input;
    const { data } = entry;
    const count = step.numScheduledTokens[position]!;
    const firstDraft = step.draftOffsets[position]!;
    const numDrafts = step.draftOffsets[position + 1]! - firstDraft;
    const start = this.#startOf(step, position, entry);
    const firstUnknown = start + count - numDrafts;
    const row = input.addRequest(entry.slot, start, count, numDrafts, firstUnknown >= data.numTokens);

    for (let t = 0; t < count; t++) {
      const at = start + t;
      const draft = at - firstUnknown;
      let token = FROM_DEVICE;
      if (at < data.numTokens) token = data.tokenIds[at]!;
      else if (draft >= 0 && step.draftTokenIds[firstDraft + draft] !== PLACEHOLDER_TOKEN) {
        token = step.draftTokenIds[firstDraft + draft]!;
      }
      input.setToken(row + t, token);
      input.setSlot(row + t, this.#batch.slotOf(entry, at));
    }
    entry.numComputedTokens = start + count;
    out.requestIndices[i] = data.index;
    out.tokenStarts[i] = start;
    out.tokenCounts[i] = count;
    out.draftCounts[i] = numDrafts;
    out.rowStarts[i] = row;
    out.optedIn[i] = data.returnRoutedExperts ? 1 : 0;
    out.promptStarts[i] = data.routedExpertsPromptStart;
  }

  /** With drafts in flight the scheduler counts them as computed until it hears otherwise; the worker has heard. */
  #startOf(step: SchedulerOutput, position: number, entry: BatchEntry): number {
    const isOptimistic = this.#config.engine.numSpeculativeTokens > 0 && this.#config.engine.asyncScheduling;
    return isOptimistic ? entry.numComputedTokens : step.numComputedTokens[position]!;
  }

  #collect(frame: StepFrame, bytes: Uint8Array, sampledBytes: number, rowBytes: number): ModelRunnerOutput {
    const { step } = frame;
    const { sampledLayout } = this.#forward;
    const { numSpeculativeTokens, asyncScheduling } = this.#config.engine;
    const n = step.numRequests;
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, sampledBytes / 4);
    const sampledOffsets = new Uint32Array(n + 1);
    const sampledTokenIds = new Uint32Array(n * (numSpeculativeTokens + 1));
    const counts = new Uint32Array(n);
    const draftOffsets = new Uint32Array(n + 1);
    const draftTokenIds = new Uint32Array(n * numSpeculativeTokens);
    let numSampled = 0;
    let numDrafts = 0;
    for (let i = 0; i < n; i++) {
      const count = sampledLayout.count(words, i);
      counts[i] = count;
      const tokensAt = sampledLayout.tokensAt(i);
      for (let t = 0; t < count; t++) sampledTokenIds[numSampled++] = words[tokensAt + t]!;
      sampledOffsets[i + 1] = numSampled;
      if (count > 0 && step.draftCounts[i]! > 0) {
        this.#batch.get(step.requestIndices[i]!).numComputedTokens -= step.draftCounts[i]! + 1 - count;
      }
      const draftsAt = sampledLayout.draftsAt(i);
      for (let t = 0; t < (count > 0 ? numSpeculativeTokens : 0); t++) {
        draftTokenIds[numDrafts++] = words[draftsAt + t]!;
      }
      draftOffsets[i + 1] = numDrafts;
    }
    const rows = rowBytes > 0 ? bytes.subarray(sampledBytes, sampledBytes + rowBytes) : null;
    return {
      stepId: step.stepId,
      numRequests: n,
      requestIndices: step.requestIndices.slice(0, n),
      sampledTokenIds,
      sampledOffsets,
      drafts: numSpeculativeTokens > 0 && !asyncScheduling ? { tokenIds: draftTokenIds, offsets: draftOffsets } : null,
      routedExpertDeltas: this.#capture?.collect(step, rows, counts) ?? null,
    };
  }
}

function emptyOutput(stepId: number): ModelRunnerOutput {
  return {
    stepId,
    numRequests: 0,
    requestIndices: new Uint32Array(0),
    sampledTokenIds: new Uint32Array(0),
    sampledOffsets: new Uint32Array(1),
    drafts: null,
    routedExpertDeltas: null,
  };
}
