/**
 * One rank in virtual time: the real step pipeline and the real worker half on a virtual device. Where `ModelRunner`
 * waits for promises, the rank plans events: the device runs one submission after the other, and a map comes some time
 * after the submissions before it have run.
 */

import type { CaptureWorkerHalf } from '../../contract/capture.ts';
import type { ModelConfig } from '../../contract/config.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import { ForwardPass } from '../../kernels/model/forward-pass.ts';
import { packedBytes } from '../../kernels/model/kernel-shape.ts';
import type { LinkEnd, StageLinks } from '../../worker/pipeline/stages/stage-links.ts';
import { StepPipeline } from '../../worker/pipeline/step-pipeline.ts';
import type { ComingPass, PendingMap, Submission, TaskEnd } from '../../worker/pipeline/step-tasks.ts';
import { Phase } from './event-heap.ts';
import type { Flight } from '../flight.ts';
import type { VirtualDurations } from './virtual-durations.ts';
import { simKernels } from './sim-kernels.ts';
import type { TestedDesign } from '../tested-design.ts';
import { VirtualDevice, type VirtualBuffer } from './virtual-device.ts';
import type { World } from '../world.ts';

export type RankEvents = Readonly<{
  /** `null`: each rank has all layers. */
  links: StageLinks | null;
  /** The step has reached a phase on this rank. May kill the rank. */
  onPhase: (rank: VirtualRank, flight: Flight, phase: 'submitted' | 'executed' | 'mapped') => void;
  /** The hidden states of a step are to be sent to the rank of the next stage. */
  onHidden: (rank: VirtualRank, send: () => void) => void;
  onOutput: (rank: VirtualRank, flight: Flight, output: ModelRunnerOutput) => void;
}>;

/** KV on its way off the device or onto it, in turn with the steps. Keys are `[blockIds.length, blockSize, 2]` u32. */
export type KvTask = Readonly<{ blockIds: Uint32Array }> &
  /** `rank`: the rank to read. All ranks have the same KV. */
  (
    | Readonly<{ kind: 'read-kv'; rank: number; onExecuted: () => void; onRead: (keys: Uint32Array) => void }>
    /**
     * `onExecuted`: on rank 0; `onWritten`: it is behind every step before and ahead of every step to come, on this
     * rank.
     */
    | Readonly<{ kind: 'write-kv'; keys: Uint32Array; onExecuted: () => void; onWritten: () => void }>
  );

type StepTask = Readonly<{ kind: 'step'; step: Flight['plan']; epoch: number; flight: Flight }>;
type RankTask = StepTask | KvTask;

/** Only steps have hidden states. */
function stepIdOf(task: RankTask): number {
  return (task as StepTask).step.stepId;
}

/** A submission that has not run, and the maps that wait for it. */
type Fence = { onExecuted: () => void; readonly maps: PendingMap<RankTask>[] };

export class VirtualRank {
  readonly number: number;
  readonly stage: number;
  isDead = false;
  readonly #world: World;
  readonly #durations: VirtualDurations;
  readonly #events: RankEvents;
  readonly #device: VirtualDevice = new VirtualDevice();
  readonly #forward: ForwardPass;
  readonly #half: CaptureWorkerHalf | null;
  readonly #pipeline: StepPipeline<RankTask>;
  /** Memory of rows that is on its way to the engine and back. */
  readonly #rowsOut: Set<ArrayBufferLike> = new Set();
  /** The thread stands still until this tick, because a slow process holds the lock that its half asked for. */
  #standsUntil = 0;
  /** Of a stage that another stands before: where its hidden states come, and the step that waits for them. */
  readonly #reader: LinkEnd | null;
  readonly #sender: LinkEnd | null;
  #due: ComingPass<RankTask> | null = null;
  #deviceFreeAt = 0;
  #mappedAt = 0;
  /** The last submission, until it has run. */
  #lastFence: Fence | null = null;

  constructor(number: number, world: World, tested: TestedDesign, durations: VirtualDurations, events: RankEvents) {
    const { engine, ringDepth, numRanks } = world.scenario;
    const { mutation, design } = tested;
    this.number = number;
    this.stage = Math.floor(number / numRanks);
    const stage = world.stages?.[this.stage] ?? null;
    const model = stage?.model ?? world.scenario.model;
    const ends = stage?.ends ?? null;
    this.#sender = events.links?.sender(this.stage, number % numRanks) ?? null;
    this.#reader = events.links?.reader(this.stage, number % numRanks) ?? null;
    this.#world = world;
    this.#durations = durations;
    this.#events = events;
    const device = this.#device;
    const kernels: typeof simKernels = (m, shape, info) => {
      const set = simKernels(m, shape, info);
      return mutation.kernels === undefined ? set : mutation.kernels(set, m);
    };
    this.#forward = ForwardPass.assemble(device, { model, engine, kernels, ...(ends === null ? {} : { stage: ends }) });
    this.#half = this.#makeHalf(model, tested);
    if (this.#half === null && stage?.numLayers === 0) world.marks.add('a stage without a router');
    this.#pipeline = new StepPipeline<RankTask>(
      {
        engine,
        device,
        forward: this.#forward,
        capture: this.#half,
        ringDepth,
        firstLayer: stage?.firstLayer ?? 0,
      },
      {
        onSubmitted: (submission) => this.#onSubmitted(submission),
        onMap: (map) => this.#onMap(map),
        ...(ends?.receives ? { onHiddenDue: (pass) => this.#onHiddenDue(pass) } : {}),
        ...(ends?.sends ? { onHidden: ({ task, hidden }) => this.#onHidden(stepIdOf(task), hidden) } : {}),
        onEnd: (task, end) => this.#onEnd(task, end),
      },
    );
    if (this.#half?.blockingReads) world.judge.wrong('L6', `${design.name} makes blocking reads in every step`);
  }

  /** A step arrives; steps arrive in order. */
  accept(flight: Flight): void {
    this.#pipeline.accept({ kind: 'step', step: flight.plan, epoch: flight.epoch, flight });
    this.#pump();
  }

  /** Hidden states have come from the stage before. */
  look(): void {
    const due = this.#due;
    if (due === null) {
      this.#world.marks.add('hidden states before their step');
      return;
    }
    const hidden = this.#reader!.take(stepIdOf(due.task));
    if (hidden === null) return;
    this.#due = null;
    this.#pipeline.hiddenCame(due, hidden);
    this.#pump();
  }

  acceptKv(task: KvTask): void {
    this.#pipeline.accept(task);
    this.#pump();
  }

  /** The engine has read the rows of an output; their memory comes back. */
  recycle(rows: Uint8Array): void {
    if (this.isDead) return;
    if (!this.#rowsOut.delete(rows.buffer)) this.#world.judge.wrong('L3', `rank ${this.number} gets rows back twice`);
    // A view of the rows that was kept too long shows this value.
    rows.fill(0xa5);
    this.#half?.recycle?.(rows.buffer as ArrayBuffer);
  }

  /** After the drain nothing may be left (L7). */
  checkDrained(): void {
    const { judge } = this.#world;
    const { numEntries, numRingSlotsInUse } = this.#pipeline;
    if (numEntries > 0) judge.wrong('L7', `the worker remembers ${numEntries} requests`);
    if (numRingSlotsInUse > 0) judge.wrong('L7', `${numRingSlotsInUse} ring slots are held`);
    if (this.#reader?.isEmpty === false) judge.wrong('L7', 'hidden states of a step were left to nobody');
    if (this.#rowsOut.size > 0) {
      judge.wrong('L7', `${this.#rowsOut.size} buffers of rows never came back to rank ${this.number}`);
    }
    const counts = this.#half?.liveCounts?.() ?? { requests: 0, bytes: 0 };
    if (counts.requests === 0 && counts.bytes === 0) return;
    judge.wrong('L7', `the worker half holds ${counts.requests} requests and ${counts.bytes} bytes after the drain`);
  }

  close(): void {
    this.#half?.close?.();
  }

  #makeHalf(model: ModelConfig, { design, mutation }: TestedDesign): CaptureWorkerHalf | null {
    const { slotMapping, rows } = this.#forward;
    if (rows === null) return null;
    const { engine } = this.#world.scenario;
    const context = { rank: this.number, device: this.#device, model, engine, slotMapping, ...rows };
    const half = design.workerHalf(context, { sharedRows: () => this.#world.sharedRows('worker') });
    return half !== null && mutation.workerHalf ? mutation.workerHalf(half, context) : half;
  }

  #onHidden(stepId: number, hidden: Uint32Array): void {
    this.#events.onHidden(this, () => this.#sender!.send(stepId, hidden));
  }

  /** The step goes on at once, or when its hidden states have come. */
  #onHiddenDue(pass: ComingPass<RankTask>): void {
    this.#due = pass;
    this.#plan(0, Phase.worker, () => {
      if (this.#due !== null) this.look();
    });
  }

  /** Begins the tasks that can begin; the step after a submitted one begins a little later. */
  #pump(): void {
    if (this.#stands(Phase.worker, () => this.#pump())) return;
    while (!this.isDead) {
      const fence = this.#lastFence;
      const task = this.#pipeline.advance();
      if (task === null) break;
      if (task.kind !== 'step' || this.#lastFence === fence) continue;
      if (this.#pipeline.numQueued > 0) this.#plan(this.#durations.host(), Phase.worker, () => this.#pump());
      return;
    }
    if (this.#pipeline.isRingFull) this.#world.marks.add('ring full');
  }

  #onSubmitted({ task, kind, step, captureBytes }: Submission<RankTask>): void {
    if (task.kind !== 'step') {
      this.#submitted(1, task.onExecuted);
      return;
    }
    const { flight } = task;
    this.#checkCopied(flight, captureBytes);
    if (kind === 'read') {
      this.#submitted(1, () => undefined);
      return;
    }
    this.#events.onPhase(this, flight, 'submitted');
    if (this.isDead) return;
    const { passes, scenario } = this.#world;
    const isFirstOfStage = this.number % scenario.numRanks === 0;
    if (isFirstOfStage) passes.onSubmitted(flight);
    this.#submitted(this.#durations.pass(this.stage), () => {
      if (isFirstOfStage) {
        const { routedExperts, sampled, sampledLayout } = this.#forward;
        passes.onExecuted(flight, this.stage, {
          step: step!,
          routed: (routedExperts as VirtualBuffer).words,
          sampled: (sampled as VirtualBuffer).words,
          layout: sampledLayout,
        });
      }
      this.#events.onPhase(this, flight, 'executed');
    });
  }

  /** Plans when the last submission runs; the maps that wait for it come after it. */
  #submitted(duration: number, onExecuted: () => void): void {
    const fence: Fence = { onExecuted, maps: [] };
    this.#lastFence = fence;
    this.#deviceFreeAt = Math.max(this.#deviceFreeAt, this.#durations.clock.now) + duration;
    this.#planAt(this.#deviceFreeAt, Phase.device, () => {
      this.#device.executeNext();
      fence.onExecuted();
      if (this.#lastFence === fence) this.#lastFence = null;
      if (!this.isDead) for (const map of fence.maps) this.#planMap(map);
    });
  }

  #onMap(map: PendingMap<RankTask>): void {
    if (this.isDead) return;
    if (this.#lastFence === null) this.#planMap(map);
    else this.#lastFence.maps.push(map);
  }

  #planMap(map: PendingMap<RankTask>): void {
    this.#mappedAt = Math.max(this.#mappedAt, this.#durations.clock.now + this.#durations.map());
    this.#planAt(this.#mappedAt, Phase.map, () => this.#mapped(map));
  }

  #mapped(map: PendingMap<RankTask>): void {
    if (this.#stands(Phase.map, () => this.#mapped(map))) return;
    this.#pipeline.mapped(map, this.#device.view(map.buffer, map.byteLength));
    this.#noteWait();
    this.#pump();
  }

  /** Returns whether the rank's thread stands still; `run` is then planned for when it goes on. */
  #stands(phase: Phase, run: () => void): boolean {
    if (this.#durations.clock.now >= this.#standsUntil) return false;
    this.#planAt(this.#standsUntil, phase, run);
    return true;
  }

  #noteWait(): void {
    const { lock, log } = this.#world;
    const until = lock.takeWait('worker');
    if (until === null) return;
    this.#standsUntil = until;
    if (!log.isTracing) return;
    this.#world.say(`rank ${this.number} stands still until tick ${until}, behind a slow lock holder`);
  }

  #onEnd(task: RankTask, end: TaskEnd): void {
    switch (end.kind) {
      case 'failed':
        throw end.error;
      case 'kv':
        (task as KvTask & { kind: 'read-kv' }).onRead(end.keys);
        return;
      case 'kv-written': {
        const { onExecuted, onWritten } = task as KvTask & { kind: 'write-kv' };
        // Marks where in the queue the keys are written.
        this.#device.submit(() => undefined);
        this.#submitted(1, this.number === 0 ? onExecuted : (): void => undefined);
        onWritten();
        return;
      }
      case 'output': {
        const { flight } = task as StepTask;
        const rows = end.output.routedExpertDeltas?.rows;
        if (rows !== undefined) this.#rowsOut.add(rows.buffer);
        if (flight.plan.numRequests > 0) this.#events.onPhase(this, flight, 'mapped');
        if (!this.isDead) this.#events.onOutput(this, flight, end.output);
        return;
      }
      // An engine that is alone owes nobody a pass.
      case 'dummy-run':
        return;
      default:
        end satisfies never;
    }
  }

  #checkCopied({ stepId, numWantedTokens }: Flight, numBytes: number): void {
    const { scenario, judge, stages } = this.#world;
    const most = packedBytes(stages?.[this.stage]!.model ?? scenario.model, numWantedTokens);
    if (numBytes <= most) return;
    const what = `step ${stepId} has ${numWantedTokens} tokens of requests that opted in`;
    judge.wrong('L5', `${what}, ${most} bytes of rows; ${numBytes} leave the device`);
  }

  #plan(ticks: number, phase: Phase, run: () => void): void {
    this.#planAt(this.#durations.clock.now + ticks, phase, run);
  }

  #planAt(time: number, phase: Phase, run: () => void): void {
    this.#durations.clock.plan(time, phase, () => {
      if (!this.isDead) run();
    });
  }
}
