/**
 * What one rank does with the steps and KV moves that it is handed, as a state machine: tasks and finished maps in,
 * maps to make and ends of tasks out. It has no promise, no clock and no I/O of its own: `ModelRunner` drives it with
 * promises, the simulator with an event heap.
 *
 *     accept ─▶ queue ─turn─▶ ring slot ─▶ begin ─▶ submit ┬▶ the turn is free
 *                                                          └▶ onMap ─▶ … ─▶ mapped ─▶ collect ─▶ onEnd, slot free
 *
 * Where steps depend on each other, the turn is free only at the end. In lockstep with other ranks, a step waits for
 * theirs behind its forward pass, and the turn is free when all of them have run. Where other engines run passes of
 * other sizes, it waits for these before, too:
 *
 *     ring slot ─▶ onPassComes ─▶ … ─▶ passSized ─▶ advance ─▶ begin
 *     submit ─▶ onMap ─▶ mapped ─▶ onPassEnd ─▶ … ─▶ passReleased ─▶ advance ─▶ onMap ─▶ …
 *
 * A pipeline stage waits for the hidden states of the stage before, and sends its own on:
 *
 *     ring slot ─▶ onHiddenDue ─▶ … ─▶ hiddenCame ─▶ advance ─▶ begin ─▶ submit ─▶ onMap ─▶ mapped ─▶ onHidden ─▶ onEnd
 */

import type { BlockingReads, DeviceRange } from '../../contract/capture.ts';
import type { Device, DeviceBuffer } from '../../contract/device.ts';
import type { ForwardPass } from '../../kernels/model/forward-pass.ts';
import { KvBlocks } from './kv-blocks.ts';
import { ReadbackRing } from './readback-ring.ts';
import { DUMMY_ROWS, emptyOutput, StepRunner, type StepRunnerOptions } from './step-runner.ts';
import type { ComingPass, EndedPass, PendingMap, PipelineActions } from './step-tasks.ts';
import type { StepInFlight, TaskEnd, WorkerTask } from './step-tasks.ts';

export type PipelineOptions = StepRunnerOptions &
  Readonly<{
    /** Steps whose results may be on their way to the host at once. */
    ringDepth: number;
  }>;

export class StepPipeline<Task extends WorkerTask> {
  /**
   * Bytes of the device's buffers that capture needs: the ids of all layers, the packed rows, their places in the ring,
   * and the target of blocking reads. 0 without capture: the ids are there, but nothing needs them.
   */
  readonly captureBufferBytes: number;
  readonly #device: Device;
  readonly #steps: StepRunner;
  readonly #reads: BlockingReads | null;
  readonly #ring: ReadbackRing;
  readonly #kv: KvBlocks;
  /** The target of blocking reads. */
  readonly #staging: DeviceBuffer | null;
  /** A step depends on the results of the one before: it verifies drafts, or its design blocks. */
  readonly #oneAtATime: boolean;
  readonly #actions: PipelineActions<Task>;
  readonly #queue: Task[] = [];
  /** The step that keeps later tasks from beginning. */
  #turnHolder: Task | null = null;
  /** The holder of the turn, with what it had to read before its forward pass. */
  #readyStep: Readonly<{ task: Task; flight: StepInFlight }> | null = null;
  /** What the holder of the turn goes on with: it has heard the sizes of all passes, or all of them have run. */
  #goOn: (() => Task) | null = null;
  /** Buffers of KV reads that have ended, which may still be mapped. */
  readonly #spent: DeviceBuffer[] = [];
  readonly #maps: Set<PendingMap<Task>> = new Set();
  #resultBytesRead = 0;
  #captureBytesRead = 0;

  constructor(options: PipelineOptions, actions: PipelineActions<Task>) {
    const { engine, device, forward, capture, ringDepth } = options;
    this.#device = device;
    this.#steps = new StepRunner(options);
    this.#reads = capture?.blockingReads ?? null;
    this.#ring = new ReadbackRing(device, ringDepth, this.#steps.maxResultBytes);
    this.#kv = new KvBlocks(device, forward.kvKeys, engine.blockSize);
    const stagingBytes = forward.routedExperts.byteLength;
    this.#staging = this.#reads === null ? null : device.createBuffer('staging', stagingBytes, 'readback');
    this.captureBufferBytes = capture === null ? 0 : captureBufferBytes(forward, ringDepth, this.#staging);
    this.#oneAtATime = this.#reads !== null || engine.numSpeculativeTokens > 0;
    this.#actions = actions;
  }

  /** Requests that the worker remembers. */
  get numEntries(): number {
    return this.#steps.numEntries;
  }

  get numRingSlotsInUse(): number {
    return this.#ring.inUse;
  }

  /** Tasks that have not begun. */
  get numQueued(): number {
    return this.#queue.length;
  }

  /** A step could begin if it had a slot for its results. */
  get isRingFull(): boolean {
    return this.#turnHolder === null && this.#queue[0]?.kind === 'step' && this.#ring.isFull;
  }

  /** Bytes read back from the device since the start: all of them, and those for capture. */
  get readbackBytes(): Readonly<{ all: number; capture: number }> {
    return { all: this.#resultBytesRead + this.#captureBytesRead, capture: this.#captureBytesRead };
  }

  /** The task waits for its turn; `advance` begins it. */
  accept(task: Task): void {
    this.#queue.push(task);
  }

  /**
   * Goes on with the step that had to read before its forward pass, or had to wait for other ranks, or begins the
   * oldest task that has not begun, and returns it. `null`: there is no such task, a step holds the turn, or the ring
   * is full. Call it again until it returns `null`, and again whenever a task was accepted, a map has ended, or a pass
   * was sized or released. Nothing is submitted anywhere else: a buffer must not be a copy's target as long as it is
   * mapped.
   */
  advance(): Task | null {
    for (let buffer = this.#spent.pop(); buffer !== undefined; buffer = this.#spent.pop()) buffer.destroy();
    const ready = this.#readyStep;
    if (ready !== null) {
      this.#readyStep = null;
      return this.#attempt(ready.task, ready.flight.slot, () => this.#submit(ready.task, ready.flight));
    }
    const goOn = this.#goOn;
    if (goOn !== null) {
      this.#goOn = null;
      return goOn();
    }
    const task = this.#queue[0];
    if (task === undefined || this.#turnHolder !== null) return null;
    const work: WorkerTask = task;
    const needsSlot = work.kind === 'step' || work.kind === 'dummy';
    const slot = needsSlot ? this.#ring.acquire() : null;
    if (needsSlot && slot === null) return null;
    this.#queue.shift();
    const numRows = work.kind === 'step' ? work.step.totalNumScheduledTokens : work.kind === 'dummy' ? DUMMY_ROWS : 0;
    const waits = this.#actions.onHiddenDue ?? this.#actions.onPassComes;
    if (numRows > 0 && waits !== undefined) {
      this.#turnHolder = task;
      waits({ task, slot: slot!, numRows });
      return task;
    }
    return this.#attempt(task, slot, () => {
      if (work.kind === 'step' || work.kind === 'dummy') this.#begin(task, work, slot!, [numRows]);
      else if (work.kind === 'read-kv') this.#readKv(task, work.blockIds);
      else this.#writeKv(task, work.blockIds, work.keys);
    });
  }

  /** A map has succeeded. `bytes` is valid only inside this call. A map that has ended before is ignored. */
  mapped(map: PendingMap<Task>, bytes: Uint8Array): void {
    if (!this.#maps.delete(map)) return;
    try {
      this.#takeIn(map, bytes);
    } catch (error) {
      this.#failMapped(map, error);
    }
  }

  /** A map has failed, and its task with it. A map that has ended before is ignored. */
  notMapped(map: PendingMap<Task>, error: unknown): void {
    if (this.#maps.delete(map)) this.#failMapped(map, error);
  }

  /** The passes of the engines have so many rows: this one begins with the next `advance`. */
  passSized({ task, slot }: ComingPass<Task>, rowsOfEngines: readonly number[]): void {
    const work = task as WorkerTask & Readonly<{ kind: 'step' | 'dummy' }>;
    this.#goOn = () => this.#attempt(task, slot, () => this.#begin(task, work, slot, rowsOfEngines));
  }

  /** The stage before has sent the hidden states of a step: it begins with the next `advance`. */
  hiddenCame({ task, slot, numRows }: ComingPass<Task>, hidden: Uint32Array): void {
    const work = task as WorkerTask & Readonly<{ kind: 'step' }>;
    this.#goOn = () =>
      this.#attempt(task, slot, () => {
        this.#steps.receive(hidden, numRows);
        this.#begin(task, work, slot, [numRows]);
      });
  }

  /** All ranks have run their passes: the step goes on with the next `advance`. `gathered`: the shards of all. */
  passReleased({ task, flight }: EndedPass<Task>, gathered: Uint32Array | null = null): void {
    this.#goOn = () =>
      this.#attempt(task, flight.slot, () => {
        if (gathered !== null) this.#submitRows(task, flight, gathered);
        this.#afterPass(task, flight);
      });
  }

  /** Other ranks were waited for in vain, and the step fails. */
  passFailed(pass: ComingPass<Task> | EndedPass<Task>, error: unknown): void {
    this.#end(pass.task, 'slot' in pass ? pass.slot : pass.flight.slot, { kind: 'failed', error });
  }

  /** The device is gone: tasks that have not begun fail. Those that have begun fail as their maps do. */
  failQueued(error: unknown): void {
    for (const task of this.#queue.splice(0)) this.#actions.onEnd(task, { kind: 'failed', error });
  }

  /** A task that throws has failed. */
  #attempt(task: Task, slot: DeviceBuffer | null, work: () => void): Task {
    try {
      work();
    } catch (error) {
      this.#end(task, slot, { kind: 'failed', error });
    }
    return task;
  }

  #begin(
    task: Task,
    work: WorkerTask & Readonly<{ kind: 'step' | 'dummy' }>,
    slot: DeviceBuffer,
    rowsOfEngines: readonly number[],
  ): void {
    if (work.kind === 'dummy') {
      this.#turnHolder = task;
      this.#submit(task, { frame: this.#steps.beginDummy(rowsOfEngines), slot });
      return;
    }
    const frame = this.#steps.begin(work.step, work.epoch, rowsOfEngines);
    if (frame === null) {
      this.#ring.release(slot);
      this.#actions.onEnd(task, { kind: 'output', output: emptyOutput(work.step.stepId) });
      return;
    }
    this.#turnHolder = task;
    const flight: StepInFlight = { frame, slot };
    if (this.#reads === null) this.#submit(task, flight);
    else this.#readNow(task, flight, 'before', this.#reads.readBefore(frame.step));
  }

  #submit(task: Task, flight: StepInFlight): void {
    const { frame, slot } = flight;
    this.#steps.submit(frame, slot);
    this.#resultBytesRead += frame.sampledBytes;
    this.#captureBytesRead += frame.rowBytes;
    this.#actions.onSubmitted({ task, kind: 'forward', step: frame.step, captureBytes: frame.rowBytes });
    if (this.#actions.onPassEnd === undefined) this.#afterPass(task, flight);
    else this.#map({ task, kind: 'pass', ...this.#steps.endOfPass(frame, slot), flight });
  }

  #submitRows(task: Task, { frame, slot }: StepInFlight, gathered: Uint32Array): void {
    this.#steps.takeGathered(frame, gathered, slot);
    this.#captureBytesRead += frame.rowBytes;
    this.#actions.onSubmitted({ task, kind: 'read', step: frame.step, captureBytes: frame.rowBytes });
  }

  #afterPass(task: Task, flight: StepInFlight): void {
    if (flight.frame.isDummy) {
      this.#steps.endDummy(flight.frame);
      this.#end(task, flight.slot, { kind: 'dummy-run' });
      return;
    }
    if (!this.#oneAtATime) this.#turnHolder = null;
    const after = this.#reads?.readAfter(flight.frame.step) ?? null;
    if (after === null) this.#mapResults(task, flight);
    else this.#readNow(task, flight, 'after', after);
  }

  #mapResults(task: Task, flight: StepInFlight): void {
    const { frame, slot } = flight;
    this.#map({ task, kind: 'results', buffer: slot, byteLength: frame.sampledBytes + frame.rowBytes, flight });
  }

  /** A blocking read: the step goes on when its bytes have come, and no other task begins meanwhile. */
  #readNow(task: Task, flight: StepInFlight, kind: 'before' | 'after', range: DeviceRange): void {
    const staging = this.#staging!;
    const { buffer, byteOffset, byteLength } = range;
    this.#device.submit((commands) => commands.copy(buffer, byteOffset ?? 0, staging, 0, byteLength));
    this.#captureBytesRead += byteLength;
    this.#actions.onSubmitted({ task, kind: 'read', step: flight.frame.step, captureBytes: byteLength });
    this.#map({ task, kind, buffer: staging, byteLength, flight });
  }

  #readKv(task: Task, blockIds: Uint32Array): void {
    if (blockIds.length === 0) {
      this.#actions.onEnd(task, { kind: 'kv', keys: new Uint32Array(0) });
      return;
    }
    const buffer = this.#kv.copyOut(blockIds);
    this.#actions.onSubmitted({ task, kind: 'read', step: null, captureBytes: 0 });
    this.#map({ task, kind: 'kv', buffer, byteLength: buffer.byteLength, flight: null });
  }

  #writeKv(task: Task, blockIds: Uint32Array, keys: Uint32Array): void {
    this.#kv.write(blockIds, keys);
    this.#actions.onEnd(task, { kind: 'kv-written' });
  }

  #map(map: PendingMap<Task>): void {
    this.#maps.add(map);
    this.#actions.onMap(map);
  }

  #takeIn(map: PendingMap<Task>, bytes: Uint8Array): void {
    const { task, flight } = map;
    if (flight === null) {
      const keys = new Uint32Array(bytes.slice().buffer);
      this.#spent.push(map.buffer);
      this.#actions.onEnd(task, { kind: 'kv', keys });
      return;
    }
    const { frame, slot } = flight;
    switch (map.kind) {
      case 'before':
        this.#reads!.takeBefore(frame.step, bytes);
        this.#readyStep = { task, flight };
        return;
      case 'pass':
        this.#actions.onPassEnd!({ task, flight, shard: frame.shardRows > 0 ? shardOf(bytes) : null });
        return;
      case 'after':
        this.#reads!.takeAfter(frame.step, bytes);
        this.#mapResults(task, flight);
        return;
      case 'results':
        this.#actions.onHidden?.({ task, hidden: this.#steps.hiddenOf(frame, bytes) });
        this.#end(task, slot, { kind: 'output', output: this.#steps.collect(frame, bytes) });
        return;
      default:
        map satisfies never;
    }
  }

  #failMapped({ task, buffer, flight }: PendingMap<Task>, error: unknown): void {
    if (flight === null) this.#spent.push(buffer);
    this.#end(task, flight?.slot ?? null, { kind: 'failed', error });
  }

  /** The task gives back its slot and its turn. */
  #end(task: Task, slot: DeviceBuffer | null, end: TaskEnd): void {
    if (slot !== null) this.#ring.release(slot);
    if (this.#turnHolder === task) this.#turnHolder = null;
    this.#actions.onEnd(task, end);
  }
}

function captureBufferBytes({ rows }: ForwardPass, ringDepth: number, staging: DeviceBuffer | null): number {
  if (rows === null) return 0;
  const { routedExperts, pack } = rows;
  return (
    routedExperts.byteLength +
    pack.rows.byteLength +
    (1 + ringDepth) * pack.packed.byteLength +
    (staging?.byteLength ?? 0)
  );
}

function shardOf(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.slice().buffer);
}
