/** The two interfaces of a capture design. Each design is a folder of `src/capture` that implements both. */

import type { DesignName, EngineConfig, ModelConfig } from './config.ts';
import type { BoundKernel, CommandRecorder, Device, DeviceBuffer } from './device.ts';
import type { FinishReason } from './engine-core-output.ts';
import type { ModelRunnerOutput, RoutedExpertDeltas } from './model-runner-output.ts';
import type { CaptureRequest } from './request.ts';
import type { RoutedRows } from './routed-rows.ts';
import type { SchedulerOutput } from './scheduler-output.ts';

/** Counted, never assumed: after a drain `requests` and `bytes` are 0 (L7). */
export type CaptureLiveCounts = Readonly<{
  /** Requests for which the half holds anything. */
  requests: number;
  /**
   * Memory of rows, snapshots and tables that grow with live tokens, in bytes. What is counted in `cachedBytes` is not
   * counted here.
   */
  bytes: number;
  /**
   * Rows that stay with cached KV blocks after their requests, in bytes: bounded by the pool, 0 after a cache reset.
   */
  cachedBytes?: number;
}>;

/**
 * The half that lives with the scheduler. The scheduler calls it synchronously. It must not block, and does nothing
 * proportional to a request's length (L6), unless its header says that it gives this up. A hook that a design has no
 * use for may be absent.
 *
 * Order of calls for one step: `hasRows`/`onBlocksCached`/`onPrefixHit`/`onBlockEvicted`/`onPreempt` while scheduling
 * → `onScheduled` → … the step runs … → `onStepOutput` → per request, in the scheduler's order: `onBlocksCached`,
 * `take`, and if it ended `release`.
 */
export interface CaptureEngineHalf {
  readonly design: DesignName;

  /** Asked once per request. `false`: the scheduler never mentions the request to the design again (L5). */
  wants(request: CaptureRequest): boolean;

  /**
   * Whether the cached block has every row that the request wants of it, as block `ordinal` of its table. A prefix
   * lookup of a wanted request takes the first inserted block of a hash that has them. Absent: the first inserted.
   */
  hasRows?(request: CaptureRequest, blockId: number, ordinal: number): boolean;

  /** `true`: where no block of a hash has the rows, the lookup ends with a miss. Else it takes the first inserted. */
  readonly needsRows?: boolean;

  /** The request was given its first `numHitBlocks` blocks by the prefix cache. */
  onPrefixHit?(request: CaptureRequest, numHitBlocks: number): void;

  /**
   * Whether a wanted request may use KV that was computed elsewhere; `hasRows` says whether rows come with it. Absent:
   * it may not.
   */
  acceptsExternalKv?(request: CaptureRequest, hasRows: boolean): boolean;

  /** The KV of the positions `[from, to)` has come, with their rows or without. The blocks that it fills are cached. */
  onExternalKv?(request: CaptureRequest, from: number, to: number, rows: RoutedRows | null): void;

  /**
   * `true`: the half keeps something with cached blocks. `onBlocksCached` tells it when a wanted request's blocks can
   * be hit, and `onBlockEvicted` when one of these, or of those that `onExternalKv` told of, loses its hash. It is told
   * nothing of other requests' blocks (L5).
   */
  readonly followsBlocks?: boolean;

  /**
   * The blocks `[firstBlock, request.numCachedBlocks)` of the request's table can be hit from here on, even in the step
   * that is being scheduled: the forward pass that fills them may not have run. Not called for blocks that the request
   * has hit.
   */
  onBlocksCached?(request: CaptureRequest, firstBlock: number): void;

  /**
   * After scheduling; `requests` are the wanted ones of the step, in the scheduler's order, `stepPositions` their
   * places in it.
   */
  onScheduled?(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void;

  /**
   * The output of a step with a wanted request in it, before any request of it is updated. `live` returns null if the
   * request has ended, or if its part of this output was dropped by a cache reset.
   */
  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void;

  /**
   * Rows to attach to the output of a wanted request: at its end all of them, before that `null` unless the design
   * emits as it goes. `numTokens` already counts `numNewTokens`. Called before the request's blocks are freed.
   */
  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null;

  /** The request loses its blocks, which it still holds here; it will come back. */
  onPreempt?(request: CaptureRequest): void;

  /** The request is over, after its last `take`. */
  release(request: CaptureRequest): void;

  /** A followed block lost its hash: no request will hit it again. */
  onBlockEvicted?(blockId: number): void;

  /** Every cached block lost its hash. Called if a wanted request was alive at any time since the last reset. */
  onCacheReset?(): void;

  /**
   * The workers died: no output of a step in flight will come. Called after all KV was given up (`onPreempt`,
   * `onCacheReset`), if `onScheduled` told of such a step.
   */
  onStepsLost?(): void;

  liveCounts(): CaptureLiveCounts;

  /** Frees what outlives requests (shared memory, locks). */
  close?(): void;
}

/** One step as a worker half sees it. Entry `i` of each array belongs to the i-th request as the worker runs them. */
export type WorkerStep = Readonly<{
  stepId: number;
  numRequests: number;
  /**
   * Tokens of the step, without padding: rows `[firstRow, firstRow + numTokens)` of the device buffer are this rank's.
   */
  numTokens: number;
  firstRow: number;
  requestIndices: Uint32Array;
  /** Position of the first token that each request computes in this step. */
  tokenStarts: Uint32Array;
  tokenCounts: Uint32Array;
  /** Draft tokens among them, always the last. */
  draftCounts: Uint32Array;
  /** Row of the device buffer that holds each request's first token. */
  rowStarts: Uint32Array;
  /** 1 if the request opted in. */
  optedIn: Uint8Array;
  /** Rows before this position are not wanted. */
  promptStarts: Uint32Array;
  numPromptTokens: Uint32Array;
  /** The most output tokens of each. */
  maxTokens: Uint32Array;
  /** KV slot of each of the rank's rows, `[numTokens]`. */
  slotMapping: Uint32Array;
  /** What the engine half said with the step. */
  captureMetadata: Uint32Array | null;
}>;

/** What a worker half is built on. */
export type CaptureWorkerContext = Readonly<{
  /** Ranks repeat each other's work: the engine takes the rows of rank 0. */
  rank: number;
  device: Device;
  model: ModelConfig;
  engine: EngineConfig;
  /** `[maxNumBatchedTokens, L, K]` u32 expert ids, written by the router in each step. */
  routedExperts: DeviceBuffer;
  /** `[maxNumBatchedTokens]` u32, written before the forward pass. */
  slotMapping: DeviceBuffer;
  /**
   * Gathers rows of `routedExperts` into `packed`, dense and narrow. `rows` is `[1 + maxNumBatchedTokens]` u32: how
   * many rows, then their numbers.
   */
  pack: Readonly<{ bound: BoundKernel; rows: DeviceBuffer; packed: DeviceBuffer }>;
  /**
   * Brings the step's rows to `routedExperts`, behind a monolithic router, whose ids lie elsewhere. A design that reads
   * `routedExperts` itself records it; `pack` does not need it. Absent: the router writes there.
   */
  recordRows?: (commands: CommandRecorder, numTokens: number) => void;
}>;

/** A part of a device buffer, in bytes, from `byteOffset` on (absent = 0). */
export type DeviceRange = Readonly<{ buffer: DeviceBuffer; byteOffset?: number; byteLength: number }>;

/**
 * What a design reads while the device's queue stands still, and takes in before anything else happens. `bytes` is
 * valid only inside the call.
 */
export interface BlockingReads {
  /** Before the forward pass. */
  readBefore(step: WorkerStep): DeviceRange;
  takeBefore(step: WorkerStep, bytes: Uint8Array): void;

  /** After the forward pass, before the step's results are looked at. `null`: this rank waits no more in this step. */
  readAfter(step: WorkerStep): DeviceRange | null;
  takeAfter(step: WorkerStep, bytes: Uint8Array): void;
}

/**
 * The half that lives with the model runner. Synchronous like the other: where a design waits for the device, the
 * runner does the waiting. A hook that a design has no use for may be absent.
 */
export interface CaptureWorkerHalf {
  readonly design: DesignName;
  /** Of a design that waits for the device in every step. With it the runner keeps one step in flight. */
  readonly blockingReads?: BlockingReads;

  /**
   * Adds its kernels to the step's own command buffer, behind the router. Returns what to read back with the step, or
   * `null`.
   */
  record(step: WorkerStep, commands: CommandRecorder): DeviceRange | null;

  /**
   * The step's results are on the host: `bytes` is the range that `record` asked for, valid only inside this call.
   * `numSampledTokens[i]` is how many tokens request `i` got: with drafts, rows behind them belong to rejected tokens.
   */
  collect(step: WorkerStep, bytes: Uint8Array | null, numSampledTokens: Uint32Array): RoutedExpertDeltas | null;

  /**
   * Requests that ended, and requests that lost their KV and may come back. Steps in flight may still bring rows of
   * both.
   */
  forget?(endedIndices: readonly number[], preemptedIndices: readonly number[]): void;

  /** Takes back the memory of an earlier `collect`. */
  recycle?(rows: ArrayBuffer): void;

  /** Absent: the half keeps nothing between steps. */
  liveCounts?(): CaptureLiveCounts;

  close?(): void;
}
