/**
 * One rank in virtual time: the real step runner and the real worker half on a virtual device. What `ModelRunner` does with promises, this
 * does with events:
 *
 *     accept ─▶ inbox ─turn─▶ ring slot ─▶ begin ─▶ submit ┬▶ pass the turn          (or at the end, where steps depend on each other)
 *                                                          └▶ … executed ─▶ … mapped ─▶ collect ─▶ output, slot free again
 */

import type { CaptureWorkerHalf, DeviceRange } from '../contract/capture.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import { ForwardPass } from '../kernels/forward-pass.ts';
import { packedBytes } from '../kernels/kernel-shape.ts';
import type { StepFrame } from '../worker/step-frame.ts';
import { emptyOutput, StepRunner } from '../worker/step-runner.ts';
import { Phase } from './event-heap.ts';
import type { Flight } from './flight.ts';
import type { Pace } from './pace.ts';
import { simKernels } from './sim-kernels.ts';
import type { Subject } from './subject.ts';
import { VirtualDevice, type VirtualBuffer } from './virtual-device.ts';
import type { World } from './world.ts';

export type RankEvents = Readonly<{
  /** The rank has come this far with the step. May kill the rank. */
  onPhase: (rank: VirtualRank, flight: Flight, phase: 'submitted' | 'executed' | 'mapped') => void;
  onOutput: (rank: VirtualRank, flight: Flight, output: ModelRunnerOutput) => void;
}>;

/** KV on its way off the device or onto it, in turn with the steps. Keys are `[blockIds.length, blockSize, 2]` u32. */
export type KvTask = Readonly<{ blockIds: readonly number[] }> &
  (
    | Readonly<{ kind: 'read'; onExecuted: () => void; onRead: (keys: Uint32Array) => void }>
    /** `onExecuted`: on rank 0; `onWritten`: it is behind every step before and ahead of every step to come, on this rank. */
    | Readonly<{ kind: 'write'; keys: Uint32Array; onExecuted: () => void; onWritten: () => void }>
  );

/** One at a time on the device: what is to happen when the queue has got there. */
type Fence = Readonly<{ onExecuted: () => void; onMapped: () => void }>;

export class VirtualRank {
  readonly number: number;
  isDead = false;
  readonly #world: World;
  readonly #pace: Pace;
  readonly #events: RankEvents;
  readonly #device: VirtualDevice = new VirtualDevice();
  readonly #forward: ForwardPass;
  readonly #half: CaptureWorkerHalf | null;
  readonly #runner: StepRunner;
  readonly #ring: VirtualBuffer[] = [];
  readonly #ringDepth: number;
  readonly #ringOverwrites: boolean;
  #nextRingSlot = 0;
  readonly #allSlots: readonly VirtualBuffer[];
  /** Memory of rows on its way to the engine and back. */
  readonly #rowsOut: Set<ArrayBufferLike> = new Set();
  readonly #staging: VirtualBuffer;
  readonly #oneAtATime: boolean;
  readonly #inbox: (Flight | KvTask)[] = [];
  readonly #blockBytes: number;
  #hasTurn = false;
  #deviceFreeAt = 0;
  #mappedAt = 0;

  constructor(number: number, world: World, subject: Subject, pace: Pace, events: RankEvents) {
    const { model, engine, ringDepth } = world.scenario;
    const { mutation, design } = subject;
    this.number = number;
    this.#blockBytes = engine.blockSize * 8;
    this.#world = world;
    this.#pace = pace;
    this.#events = events;
    const device = this.#device;
    const kernels: typeof simKernels = (m, shape, info) => {
      const set = simKernels(m, shape, info);
      return mutation.kernels === undefined ? set : mutation.kernels(set, m);
    };
    this.#forward = ForwardPass.assemble(device, { model, engine, kernels });
    const { routedExperts, slotMapping, rows } = this.#forward;
    const context = { rank: number, device, model, engine, slotMapping, ...rows! };
    const half = design.workerHalf(context, { sharedRows: () => world.sharedRows('worker') });
    this.#half = half !== null && mutation.workerHalf ? mutation.workerHalf(half, context) : half;
    this.#runner = new StepRunner(engine, device, this.#forward, this.#half);
    this.#ringDepth = ringDepth;
    this.#ringOverwrites = mutation.ringOverwrites === true;
    this.#allSlots = Array.from({ length: ringDepth }, (_, i) =>
      device.createBuffer(`readback/${i}`, this.#runner.maxResultBytes, 'readback'),
    );
    this.#ring.push(...this.#allSlots);
    const stagingBytes = this.#half?.blockingReads ? routedExperts.byteLength : 4;
    this.#staging = device.createBuffer('staging', stagingBytes, 'readback');
    this.#oneAtATime = this.#half?.blockingReads !== undefined || engine.numSpeculativeTokens > 0;
    if (this.#half?.blockingReads) world.judge.wrong('L6', `${design.name} makes blocking reads in every step`);
  }

  /** A step arrives; steps arrive in order. */
  accept(flight: Flight): void {
    this.#inbox.push(flight);
    this.#pump();
  }

  acceptKv(task: KvTask): void {
    this.#inbox.push(task);
    this.#pump();
  }

  /** The engine has read the rows of an output; their memory comes back. */
  recycle(rows: Uint8Array): void {
    if (this.isDead) return;
    if (!this.#rowsOut.delete(rows.buffer)) this.#world.judge.wrong('L3', `rank ${this.number} gets rows back twice`);
    // Whoever still looks at them sees this.
    rows.fill(0xa5);
    this.#half?.recycle(rows.buffer as ArrayBuffer);
  }

  /** After the drain nothing may be left (L7). */
  checkDrained(): void {
    const { judge } = this.#world;
    if (this.#runner.numEntries > 0) judge.wrong('L7', `the worker remembers ${this.#runner.numEntries} requests`);
    if (this.#ring.length < this.#ringDepth)
      judge.wrong('L7', `${this.#ringDepth - this.#ring.length} ring slots are held`);
    if (this.#rowsOut.size > 0) {
      judge.wrong('L7', `${this.#rowsOut.size} buffers of rows never came back to rank ${this.number}`);
    }
    const counts = this.#half?.liveCounts() ?? { requests: 0, bytes: 0 };
    if (counts.requests === 0 && counts.bytes === 0) return;
    judge.wrong('L7', `the worker half holds ${counts.requests} requests and ${counts.bytes} bytes after the drain`);
  }

  close(): void {
    this.#half?.close();
  }

  #pump(): void {
    if (this.isDead || this.#hasTurn || this.#inbox.length === 0) return;
    const next = this.#inbox[0]!;
    if ('kind' in next) {
      this.#inbox.shift();
      this.#moveKv(next);
      this.#pump();
      return;
    }
    const slot = this.#acquire();
    if (slot === null) {
      this.#world.marks.add('ring full');
      return;
    }
    this.#inbox.shift();
    const flight = next;
    const frame = this.#runner.begin(flight.plan, flight.epoch);
    if (frame === null) {
      this.#release(slot);
      this.#events.onOutput(this, flight, emptyOutput(flight.stepId));
      this.#pump();
      return;
    }
    this.#hasTurn = true;
    const reads = this.#half?.blockingReads;
    if (!reads) this.#submit(flight, frame, slot);
    else {
      const submit = (): void => this.#submit(flight, frame, slot);
      this.#readNow(flight, reads.readBefore(frame.step), (bytes) => reads.takeBefore(frame.step, bytes), submit);
    }
  }

  #submit(flight: Flight, frame: StepFrame, slot: VirtualBuffer): void {
    const numBytes = this.#runner.submit(frame, slot);
    this.#checkCopied(flight, frame.rowBytes);
    this.#events.onPhase(this, flight, 'submitted');
    if (this.isDead) return;
    const reads = this.#half?.blockingReads;
    const finish = (): void => {
      const output = this.#runner.collect(frame, this.#device.view(slot, numBytes));
      if (output.routedExpertDeltas !== null) this.#rowsOut.add(output.routedExpertDeltas.rows.buffer);
      this.#release(slot);
      this.#events.onPhase(this, flight, 'mapped');
      if (this.isDead) return;
      if (this.#oneAtATime) this.#passTurn();
      this.#events.onOutput(this, flight, output);
      this.#pump();
    };
    const after = reads?.readAfter(frame.step) ?? null;
    const readRows = (): void => {
      this.#readNow(flight, after!, (bytes) => reads!.takeAfter(frame.step, bytes), finish);
    };
    this.#fence(this.#pace.pass(), {
      onExecuted: () => {
        if (this.number === 0) this.#record(flight, frame);
        this.#events.onPhase(this, flight, 'executed');
      },
      onMapped: after === null ? finish : readRows,
    });
    if (!this.#oneAtATime) this.#passTurn();
  }

  #moveKv(task: KvTask): void {
    const device = this.#device;
    const kvKeys = this.#forward.kvKeys;
    const { blockIds } = task;
    const bytes = this.#blockBytes;
    if (task.kind === 'read') {
      const target = device.createBuffer('kv-read', blockIds.length * bytes, 'readback');
      device.submit((commands) => {
        for (const [i, id] of blockIds.entries()) commands.copy(kvKeys, id * bytes, target, i * bytes, bytes);
      });
      const onMapped = (): void => task.onRead(target.words);
      this.#fence(1, { onExecuted: task.onExecuted, onMapped });
      return;
    }
    for (const [i, id] of blockIds.entries()) {
      device.write(kvKeys, id * bytes, task.keys.subarray((i * bytes) / 4, ((i + 1) * bytes) / 4));
    }
    device.submit(() => undefined);
    const onExecuted = this.number === 0 ? task.onExecuted : (): void => undefined;
    this.#fence(1, { onExecuted, onMapped: () => undefined });
    task.onWritten();
  }

  #passTurn(): void {
    this.#hasTurn = false;
    if (this.#inbox.length > 0) this.#plan(this.#pace.host(), Phase.worker, () => this.#pump());
  }

  /** A blocking read: the rank does nothing else until it is there. */
  #readNow(
    flight: Flight,
    { buffer, byteLength }: DeviceRange,
    take: (bytes: Uint8Array) => void,
    then: () => void,
  ): void {
    this.#checkCopied(flight, byteLength);
    this.#device.submit((commands) => commands.copy(buffer, 0, this.#staging, 0, byteLength));
    this.#fence(1, {
      onExecuted: () => undefined,
      onMapped: () => {
        take(this.#device.view(this.#staging, byteLength));
        this.#whenUnlocked(then);
      },
    });
  }

  /** Goes on at once, or when the slow process lets go of the lock that the half has just asked for. */
  #whenUnlocked(then: () => void): void {
    const world = this.#world;
    const until = world.lock.takeWait('worker');
    if (until === null) return then();
    if (world.log.isTracing)
      world.say(`rank ${this.number} stands still until tick ${until}, behind a slow lock holder`);
    this.#planAt(until, Phase.worker, then);
  }

  /** The submission made last runs when the queue has got there, and can be read when its map has come. */
  #fence(duration: number, { onExecuted, onMapped }: Fence): void {
    this.#deviceFreeAt = Math.max(this.#deviceFreeAt, this.#pace.clock.now) + duration;
    this.#planAt(this.#deviceFreeAt, Phase.device, () => {
      this.#device.executeNext();
      onExecuted();
      if (this.isDead) return;
      this.#mappedAt = Math.max(this.#mappedAt, this.#pace.clock.now + this.#pace.map());
      this.#planAt(this.#mappedAt, Phase.map, onMapped);
    });
  }

  #record(flight: Flight, frame: StepFrame): void {
    const routed = (this.#forward.routedExperts as VirtualBuffer).words;
    const sampled = (this.#forward.sampled as VirtualBuffer).words;
    this.#world.ledger.onExecuted(flight, frame.step, routed, sampled, this.#forward.sampledLayout);
  }

  #checkCopied({ stepId, numWantedTokens }: Flight, numBytes: number): void {
    const { scenario, judge } = this.#world;
    const most = packedBytes(scenario.model, numWantedTokens);
    if (numBytes <= most) return;
    const what = `step ${stepId} has ${numWantedTokens} tokens of requests that opted in`;
    judge.wrong('L5', `${what}, ${most} bytes of rows; ${numBytes} leave the device`);
  }

  #acquire(): VirtualBuffer | null {
    if (!this.#ringOverwrites) return this.#ring.pop() ?? null;
    this.#nextRingSlot = (this.#nextRingSlot + 1) % this.#ringDepth;
    return this.#allSlots[this.#nextRingSlot]!;
  }

  #release(slot: VirtualBuffer): void {
    if (!this.#ringOverwrites) this.#ring.push(slot);
    if (this.#inbox.length > 0) this.#plan(this.#pace.host(), Phase.worker, () => this.#pump());
  }

  #plan(ticks: number, phase: Phase, run: () => void): void {
    this.#planAt(this.#pace.clock.now + ticks, phase, run);
  }

  #planAt(time: number, phase: Phase, run: () => void): void {
    this.#pace.clock.plan(time, phase, () => {
      if (!this.isDead) run();
    });
  }
}
