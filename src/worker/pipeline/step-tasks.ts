/** What a step pipeline is handed, what it asks of its driver, and how its tasks end. */

import type { WorkerStep } from '../../contract/capture.ts';
import type { DeviceBuffer } from '../../contract/device.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';
import type { StepFrame } from './step-frame.ts';

/**
 * Tasks run in the order in which they are accepted: a KV read sees what all steps before it wrote, a KV write is seen
 * by all steps after it.
 */
export type WorkerTask =
  /** The step must stay as it is until its task ends. `epoch`: see `StepInput.begin`. */
  | Readonly<{ kind: 'step'; step: SchedulerOutput; epoch: number }>
  /** A forward pass without a request: other engines run theirs, and none can do so alone. */
  | Readonly<{ kind: 'dummy' }>
  | Readonly<{ kind: 'read-kv'; blockIds: Uint32Array }>
  /** Keys are `[blockIds.length, blockSize, 2]` u32. */
  | Readonly<{ kind: 'write-kv'; blockIds: Uint32Array; keys: Uint32Array }>;

export type TaskEnd =
  | Readonly<{ kind: 'output'; output: ModelRunnerOutput }>
  | Readonly<{ kind: 'dummy-run' }>
  | Readonly<{ kind: 'kv'; keys: Uint32Array<ArrayBuffer> }>
  | Readonly<{ kind: 'kv-written' }>
  | Readonly<{ kind: 'failed'; error: unknown }>;

/** A step between its submission and its end. */
export type StepInFlight = Readonly<{ frame: StepFrame; slot: DeviceBuffer }>;

/** A command buffer that the device has been given. */
export type Submission<Task> = Readonly<{
  task: Task;
  /** `forward`: a step's forward pass with its capture and copies; `read`: copies alone. */
  kind: 'forward' | 'read';
  /** The step as the capture half sees it; `null` for KV. */
  step: WorkerStep | null;
  /** Bytes that this submission copies towards the host for capture. */
  captureBytes: number;
}>;

/** The first `byteLength` bytes of `buffer` are to be mapped once all that was submitted before has run. */
export type PendingMap<Task> = Readonly<{ task: Task; buffer: DeviceBuffer; byteLength: number }> &
  (
    | Readonly<{ kind: 'before' | 'pass' | 'after' | 'results'; flight: StepInFlight }>
    | Readonly<{ kind: 'kv'; flight: null }>
  );

/** A step or dummy that waits to hear how many rows the pass of each engine has; its own has `numRows`. */
export type ComingPass<Task> = Readonly<{ task: Task; slot: DeviceBuffer; numRows: number }>;

/** Hidden states of a step that a stage sends on: `[numTokens, 2]` u32. */
export type SentHidden<Task> = Readonly<{ task: Task; hidden: Uint32Array<ArrayBuffer> }>;

/**
 * A step or dummy whose forward pass has run, and which waits for the passes of other ranks. `shard`: the rows that
 * this rank has routed, which the ranks of its engine bring together; `null`: all of them, or nobody wants them.
 */
export type EndedPass<Task> = Readonly<{ task: Task; flight: StepInFlight; shard: Uint32Array | null }>;

/** What the pipeline asks of its driver. None of these may call the pipeline back before it has returned. */
export type PipelineActions<Task> = Readonly<{
  onSubmitted: (submission: Submission<Task>) => void;
  /** Call `mapped` or `notMapped` when the map has ended. */
  onMap: (map: PendingMap<Task>) => void;
  /** Call `passSized` or `passFailed` when the sizes are known. Absent: there are no other engines. */
  onPassComes?: (pass: ComingPass<Task>) => void;
  /**
   * A stage needs the hidden states of a step, `numRows` of them: call `hiddenCame` or `passFailed`. Absent: it has all
   * layers, or the first.
   */
  onHiddenDue?: (pass: ComingPass<Task>) => void;
  /** A stage has run its layers. Absent: it has all layers, or the last. */
  onHidden?: (sent: SentHidden<Task>) => void;
  /** Call `passReleased` or `passFailed` when all ranks have run theirs. Absent: the rank is in lockstep with none. */
  onPassEnd?: (pass: EndedPass<Task>) => void;
  onEnd: (task: Task, end: TaskEnd) => void;
}>;
