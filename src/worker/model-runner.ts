/** Runs the scheduler's steps on a device, in order, several in flight: vLLM's GPUModelRunner. */

import type { CaptureLiveCounts, CaptureWorkerHalf } from '../contract/capture.ts';
import type { WorkerConfig } from '../contract/config.ts';
import type { Device } from '../contract/device.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import type { Design, DesignResources } from '../capture/designs.ts';
import { ForwardPass } from '../kernels/model/forward-pass.ts';
import type { KernelSetFactory } from '../kernels/model/kernel-set.ts';
import type { WorkerLiveCounts } from './executor.ts';
import { StepPipeline } from './pipeline/step-pipeline.ts';
import type { ComingPass, EndedPass, PendingMap, TaskEnd, WorkerTask } from './pipeline/step-tasks.ts';
import { DUMMY_STEP } from './pipeline/lockstep/activity-board.ts';
import { roomForAll, type HookPlace } from './pipeline/dispatched-rows.ts';
import type { RankPasses } from './pipeline/lockstep/pass-times.ts';
import { LockstepMember } from './thread/lockstep-member.ts';
import { StageMember } from './thread/stage-member.ts';

/** The pipeline's driver: maps are the device's promises, and every task is a promise to its caller. */
export class ModelRunner {
  readonly #device: Device;
  readonly #capture: CaptureWorkerHalf | null;
  readonly #pipeline: StepPipeline<RunnerTask>;
  readonly #lockstep: LockstepMember | null;
  readonly #member: StageMember | null;
  /** Each pass folds its own number, or this one, into the keys that it writes. */
  readonly #hasEpochs: boolean;
  readonly #epoch: number | null;
  /** Of tasks that have not ended. */
  readonly #pending: Set<Promise<unknown>> = new Set();
  #loss: RoutedExpertsError | null = null;

  private constructor(config: WorkerConfig, { device, forward, capture, lockstep, place, member }: RunnerParts) {
    this.#device = device;
    this.#capture = capture;
    this.#lockstep = lockstep;
    this.#member = member;
    const { engine, queueDepth, routing } = config;
    const { firstLayer = 0, ends } = member?.stage ?? {};
    const around = { firstLayer, ...(place === null ? {} : { place }) };
    this.#pipeline = new StepPipeline(
      { engine, device, forward, capture, ringDepth: queueDepth + 1, ...around },
      {
        onSubmitted: () => {},
        onMap: (map) => void this.#map(map),
        ...(lockstep === null ? {} : { onPassEnd: (pass) => void this.#endPass(pass, lockstep) }),
        ...(lockstep?.hasOtherEngines ? { onPassComes: (pass) => void this.#sizePass(pass, lockstep) } : {}),
        ...(ends?.receives ? { onHiddenDue: (pass) => void this.#receive(pass, member!) } : {}),
        ...(ends?.sends ? { onHidden: ({ task, hidden }) => member!.send(stepIdOf(task), hidden) } : {}),
        onEnd: (task, end) => this.#end(task, end),
      },
    );
    this.#hasEpochs = routing?.kind === 'nondeterministic';
    this.#epoch = routing?.kind === 'nondeterministic' ? (routing.epoch ?? null) : null;
    void device.lost.then((reason) => {
      this.#loss = RoutedExpertsError.of('DEVICE_LOST', reason);
      this.#pipeline.failQueued(this.#loss);
    });
  }

  /**
   * Allocates the device's buffers and compiles its kernels. Rejects with ROUTING_NOT_CAPTURED for a design whose rows
   * the router does not write.
   */
  static async create(
    device: Device,
    config: WorkerConfig,
    kernels: KernelSetFactory,
    design: Design,
    resources: DesignResources,
  ): Promise<ModelRunner> {
    const { rank, numRanks, engine, ballastMs, draftAcceptanceRate, pipeline } = config;
    const member = pipeline === undefined ? null : new StageMember(config, pipeline);
    const { model, ends } = member?.stage ?? { model: config.model, ends: undefined };
    const stage = ends === undefined ? {} : { stage: ends };
    const drafts = draftAcceptanceRate === undefined ? {} : { draftAcceptanceRate };
    const place = placeOf(config, design);
    const shard = place?.dispatch === 'modular-shards' ? { shard: { index: rank, count: numRanks } } : {};
    const room = place === null ? engine : roomForAll(engine, place);
    const captures = design.name !== 'off';
    const options = { model, engine: room, ballastMs, ...drafts, ...shard, captures, kernels, ...stage };
    const forward = await ForwardPass.create(device, options);
    const { slotMapping, rows } = forward;
    const isRouted = model.numLayers > 0;
    if (rows === null && captures && isRouted) throw RoutedExpertsError.of('ROUTING_NOT_CAPTURED', design.name);
    const capture =
      rows === null ? null : design.workerHalf({ rank, device, model, engine, slotMapping, ...rows }, resources);
    const lockstep = config.lockstep === undefined ? null : new LockstepMember(config.lockstep, rank, numRanks);
    return new ModelRunner(config, { device, forward, capture, lockstep, place, member });
  }

  /**
   * Steps must be handed in in order; the outputs of those that run requests resolve in order. Rejects with
   * DEVICE_LOST.
   */
  async execute(step: SchedulerOutput): Promise<ModelRunnerOutput> {
    const end = await this.#run({ kind: 'step', step, epoch: this.#hasEpochs ? (this.#epoch ?? step.stepId + 1) : 0 });
    return (end as TaskEnd & { kind: 'output' }).output;
  }

  /** A forward pass without a request. Rejects with DEVICE_LOST and COLLECTIVE_TIMEOUT. */
  async runDummy(): Promise<void> {
    await this.#run({ kind: 'dummy' });
  }

  /** The KV of blocks as all steps handed in before leave it; see `KvBlocks`. Rejects with DEVICE_LOST. */
  async readKv(blockIds: Uint32Array): Promise<Uint32Array<ArrayBuffer>> {
    return ((await this.#run({ kind: 'read-kv', blockIds })) as TaskEnd & { kind: 'kv' }).keys;
  }

  /** Overwrites the KV of blocks, behind all steps handed in before and ahead of those handed in later. */
  async writeKv(blockIds: Uint32Array, keys: Uint32Array): Promise<void> {
    await this.#run({ kind: 'write-kv', blockIds, keys });
  }

  /** Bytes read back from the device since the start: all of them, and those for capture. */
  readbackBytes(): Readonly<{ all: number; capture: number }> {
    return this.#pipeline.readbackBytes;
  }

  /** What passes took since the last call; `null`: the rank is in lockstep with none. */
  takePasses(): RankPasses | null {
    return this.#lockstep?.takePasses() ?? null;
  }

  /** Takes back the rows of an output that was read. */
  recycle(rows: ArrayBuffer): void {
    this.#capture?.recycle?.(rows);
  }

  liveCounts(): Omit<WorkerLiveCounts, 'lentBuffers'> {
    return {
      batchEntries: this.#pipeline.numEntries,
      ringSlots: this.#pipeline.numRingSlotsInUse,
      capture: this.captureCounts(),
    };
  }

  /** What the worker half holds. */
  captureCounts(): CaptureLiveCounts {
    return this.#capture?.liveCounts?.() ?? { requests: 0, bytes: 0 };
  }

  /** See `StepPipeline`. */
  get captureBufferBytes(): number {
    return this.#pipeline.captureBufferBytes;
  }

  /** Waits for the tasks that were handed in, then closes capture and device. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#pending);
    await this.#device.destroy();
    this.#capture?.close?.();
  }

  #run(work: WorkerTask): Promise<TaskEnd> {
    const { promise, resolve, reject } = Promise.withResolvers<TaskEnd>();
    if (this.#loss !== null) reject(this.#loss);
    else {
      this.#pending.add(promise);
      this.#pipeline.accept({ ...work, acceptedAt: performance.now(), resolve, reject });
      this.#advance();
    }
    return promise.finally(() => this.#pending.delete(promise));
  }

  #advance(): void {
    while (this.#pipeline.advance() !== null);
  }

  async #map(map: PendingMap<RunnerTask>): Promise<void> {
    if (map.kind === 'before' || map.kind === 'pass') this.#lockstep?.passBegins(map.flight.frame.step.stepId);
    try {
      const takeIn = (bytes: Uint8Array): void => this.#pipeline.mapped(map, bytes);
      const blocksThread = map.kind === 'before' || map.kind === 'after';
      await this.#device.read(map.buffer, map.byteLength, takeIn, { blocksThread });
    } catch (error) {
      this.#pipeline.notMapped(map, error);
    }
    // Only here: as long as the buffer is mapped it must not be a copy's target.
    this.#advance();
  }

  async #sizePass(pass: ComingPass<RunnerTask>, lockstep: LockstepMember): Promise<void> {
    const { task, numRows } = pass;
    try {
      const stepId = task.kind === 'step' ? task.step.stepId : DUMMY_STEP;
      this.#pipeline.passSized(pass, await lockstep.sizesOf(stepId, numRows));
    } catch (error) {
      this.#pipeline.passFailed(pass, error);
    }
    this.#advance();
  }

  async #receive(pass: ComingPass<RunnerTask>, member: StageMember): Promise<void> {
    try {
      this.#pipeline.hiddenCame(pass, await member.receive(stepIdOf(pass.task)));
    } catch (error) {
      this.#pipeline.passFailed(pass, error);
    }
    this.#advance();
  }

  async #endPass(pass: EndedPass<RunnerTask>, lockstep: LockstepMember): Promise<void> {
    try {
      const { flight, task, shard } = pass;
      const gathered = await lockstep.passEnded(flight.frame.step.stepId, task.acceptedAt, shard);
      this.#pipeline.passReleased(pass, gathered);
    } catch (error) {
      this.#pipeline.passFailed(pass, error);
    }
    this.#advance();
  }

  #end(task: RunnerTask, end: TaskEnd): void {
    if (task.kind === 'step') this.#lockstep?.stepEnded(task.step.stepId);
    if (task.kind === 'dummy') this.#lockstep?.stepEnded(DUMMY_STEP);
    if (end.kind === 'failed') {
      this.#member?.fail();
      task.reject(this.#loss ?? end.error);
    } else task.resolve(end);
  }
}

type RunnerParts = Readonly<{
  device: Device;
  forward: ForwardPass;
  capture: CaptureWorkerHalf | null;
  lockstep: LockstepMember | null;
  place: HookPlace | null;
  member: StageMember | null;
}>;

/** Of a task that has hidden states: these are steps. */
function stepIdOf(task: RunnerTask): number {
  return (task as RunnerTask & Readonly<{ kind: 'step' }>).step.stepId;
}

/** `acceptedAt`: `performance.now()`. */
type RunnerTask = WorkerTask &
  Readonly<{ acceptedAt: number; resolve: (end: TaskEnd) => void; reject: (error: unknown) => void }>;

/** `null`: there are no other engines, and no shards. */
function placeOf({ lockstep, numRanks }: WorkerConfig, { gaps }: Design): HookPlace | null {
  if (lockstep === undefined) return null;
  const { numEngines, engine, dispatch = 'modular' } = lockstep;
  if (numEngines === 1 && dispatch !== 'modular-shards') return null;
  const ranks = {
    dataParallelRank: engine,
    dataParallelSize: numEngines,
    tensorParallelSize: numRanks,
    isSequenceParallel: dispatch === 'naive-shards' || dispatch === 'modular-shards',
  };
  return { ranks, dispatch, capturesAll: gaps.some(({ law }) => law === 'L5') };
}
