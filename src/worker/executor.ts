/** What the engine's driver talks to: it runs a step on every rank. */

import type { CaptureLiveCounts } from '../contract/capture.ts';
import type { DeviceInfo } from '../contract/device.ts';
import type { RoutedExpertsError } from '../contract/errors.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';

/** Bytes moved since the start. */
export type TransferCounts = Readonly<{
  /** Read back from the devices. */
  deviceToHost: number;
  /** Of these, what capture asked for: everything but sampled tokens. */
  captureDeviceToHost: number;
  /** Transferred between threads, both ways, in used bytes. */
  acrossThreads: number;
}>;

/** What workers hold; all 0 after a drain. */
export type WorkerLiveCounts = Readonly<{
  batchEntries: number;
  ringSlots: number;
  /** Buffers of outputs that were handed out and not recycled. */
  lentBuffers: number;
  capture: CaptureLiveCounts;
}>;

export interface Executor {
  readonly devices: readonly DeviceInfo[];
  /**
   * Resolves with DEVICE_LOST or WORKER_LOST when a worker is lost, also while nothing is in flight. Nothing works from
   * then on but `shutdown`.
   */
  readonly lost: Promise<RoutedExpertsError>;
  /**
   * Dispatches a step, which must stay as it is until its promise settles. Several may be in flight; those that run
   * requests settle in order. Rejects with DEVICE_LOST or WORKER_LOST, and then so does everything in flight; with
   * RANKS_DIFFER.
   */
  execute(step: SchedulerOutput): Promise<ModelRunnerOutput>;
  /** Every rank runs a pass without a request, behind the steps dispatched before. Absent: for no group of engines. */
  executeDummy?(): Promise<void>;
  /** Takes back the memory of an output after its last reader. */
  recycle(output: ModelRunnerOutput): void;
  /** The KV of blocks, `[blockIds.length, blockSize, 2]` u32, as all steps dispatched before leave it. */
  readKv(blockIds: readonly number[]): Promise<Uint32Array>;
  /**
   * Overwrites the KV of blocks, behind all steps dispatched before and ahead of those dispatched later. The keys are
   * taken over.
   */
  writeKv(blockIds: readonly number[], keys: Uint32Array<ArrayBuffer>): Promise<void>;
  transferCounts(): TransferCounts;
  liveCounts(): Promise<WorkerLiveCounts>;
  /**
   * Stop → drain → await the last map → destroy the device → one event-loop turn → close. A worker that is stuck is
   * abandoned instead, see `abandoned-threads.ts`. Idempotent, never rejects.
   */
  shutdown(): Promise<void>;
}
