/**
 * The two interfaces of a capture design. Each built-in design is a folder of `src/capture` that implements both; a
 * design of the caller's own is a module that exports both.
 *
 * Hooks that fail. A hook fails if it throws, returns a promise, or returns what it may not. In a built-in half that is
 * a defect of this project, and the engine stops. Halves of the caller's own are guarded (`capture/guard`), and the
 * failure costs as little as it can:
 *
 *     engine half   wants                                               the request is refused
 *                   hasRows, onPrefixHit, onBlocksCached, onPreempt,
 *                   acceptsExternalKv, onExternalKv, take, release      the request ends with `error`
 *                   onScheduled, onStepOutput, evictedRows, onBlockEvicted,
 *                   onCacheReset, onStepsLost, liveCounts               the design is switched off
 *     worker half   every hook                                          the design is switched off
 *
 * A hook that concerns one request, and fails for a request that asked for no rows, switches the design off too: that
 * request goes on. A design is switched off for one engine core: every request that asked for rows ends with `error`,
 * later ones are refused, the others go on, and of the half only `close` is called any more. The error is
 * DESIGN_FAILED; it names the design and the hook. No guard helps against a hook that does not return, or that leaves
 * commands that the device refuses: the workers are lost then, and a `stepTimeoutMs` ends the waiting.
 */

import type { EngineConfig, ModelConfig } from './config.ts';
import type { BoundKernel, CommandRecorder, Device, DeviceBuffer } from './device.ts';
import type { FinishReason } from './engine-core-output.ts';
import type { RoutedExpertsError } from './errors.ts';
import type { EvictedRows } from './kv-connector.ts';
import type { ModelRunnerOutput, RoutedExpertDeltas } from './model-runner-output.ts';
import type { CaptureRequest } from './request.ts';
import type { RoutedRows } from './routed-rows.ts';
import type { SchedulerOutput } from './scheduler-output.ts';

/** What a half holds, counted: after a drain `requests` and `bytes` are 0 (L7). */
export type CaptureLiveCounts = Readonly<{
  /** Requests for which the half holds anything. */
  requests: number;
  /** Bytes of rows, snapshots and tables that grow with live tokens, without those of `cachedBytes`. */
  bytes: number;
  /** Bytes of rows that stay with cached KV blocks after their requests: bounded by the pool, 0 after a cache reset. */
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
  /** Name of the design. */
  readonly design: string;

  /** Called once per request. `false`: the scheduler never mentions the request to the design again (L5). */
  wants(request: CaptureRequest): boolean;

  /**
   * Returns whether the cached block, as block `ordinal` of the request's table, has every row that the request wants
   * of it. A prefix lookup of a wanted request takes the first inserted block of a hash that has them. Absent: the
   * first inserted block.
   */
  hasRows?(request: CaptureRequest, blockId: number, ordinal: number): boolean;

  /** `true`: where no block of a hash has the rows, the lookup misses. Otherwise it takes the first inserted block. */
  readonly needsRows?: boolean;

  /** The first `numHitBlocks` blocks of the request's table came from the prefix cache. */
  onPrefixHit?(request: CaptureRequest, numHitBlocks: number): void;

  /**
   * Returns whether a wanted request may use KV that was computed elsewhere and comes with rows, or without. Absent: it
   * may not. A half that has this method also has `onExternalKv`.
   */
  acceptsExternalKv?(request: CaptureRequest, hasRows: boolean): boolean;

  /**
   * The KV of the positions `[from, to)` has come, with their rows or with `null`. The blocks that it fills are cached.
   */
  onExternalKv?(request: CaptureRequest, from: number, to: number, rows: RoutedRows | null): void;

  /**
   * `true`: a wanted request may begin with blocks of a KV tier, though no rows come with them. What the half hands out
   * for them is its own affair. Absent: such blocks are for halves with `acceptsExternalKv`.
   */
  readonly takesTierKv?: boolean;

  /** Returns the rows of a followed block that is being evicted, before `onBlockEvicted`; `null`: there are none. */
  evictedRows?(blockId: number): EvictedRows | null;

  /**
   * `true`: the half keeps something with cached blocks. The scheduler then calls `onBlocksCached` for wanted requests,
   * and `onBlockEvicted` for the blocks named there or in `onExternalKv`, but for no block of other requests (L5).
   */
  readonly followsBlocks?: boolean;

  /**
   * The blocks `[firstBlock, request.numCachedBlocks)` of the request's table can be hit from now on, even in the step
   * that is being scheduled: the forward pass that fills them may not have run. Not called for blocks that the request
   * has hit.
   */
  onBlocksCached?(request: CaptureRequest, firstBlock: number): void;

  /**
   * The step is scheduled. `requests` are its wanted requests in the scheduler's order, `stepPositions` their places in
   * the step.
   */
  onScheduled?(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void;

  /**
   * The output of a step with a wanted request has arrived; no request of it is updated yet. `live` returns null if the
   * request has ended, or if a cache reset dropped its part of this output.
   */
  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void;

  /**
   * Returns the rows to attach to an output of a wanted request: all of them at its end, before that `null` unless the
   * design emits as it goes. `numTokens` already counts `numNewTokens`. Called before the request's blocks are freed.
   *
   * The rows of one request begin at its `routedExpertsPromptStart`, come in order, and end at `numTokens - 1`: a row
   * that does not exist is listed as missing. Chunks must stay as they are from here on.
   */
  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null;

  /** The request loses its blocks, which it still holds here; it will come back. */
  onPreempt?(request: CaptureRequest): void;

  /** The request is over, after its last `take`. */
  release(request: CaptureRequest): void;

  /** A block that the half follows lost its hash: no request will hit it again. */
  onBlockEvicted?(blockId: number): void;

  /** Every cached block lost its hash. Called if a wanted request was alive at any time since the last reset. */
  onCacheReset?(): void;

  /**
   * The workers died: no output of a step in flight will come. Called after all KV was given up (`onPreempt`,
   * `onCacheReset`), if `onScheduled` was called for such a step.
   */
  onStepsLost?(): void;

  liveCounts(): CaptureLiveCounts;

  /** Frees shared memory and locks, which outlive requests. */
  close?(): void;

  /**
   * Of the guard alone: the requests, by id, for which hooks have failed since the last call. The engine core asks
   * before it hands outputs out, and ends each of them with its error. `null`: there are none.
   */
  takeFailures?(): ReadonlyMap<string, RoutedExpertsError> | null;
}

/** One step as a worker half sees it. Entry `i` of each array belongs to the i-th request in the worker's order. */
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
  /** 1 for a request that opted in. */
  optedIn: Uint8Array;
  /** Rows before this position are not wanted. */
  promptStarts: Uint32Array;
  numPromptTokens: Uint32Array;
  /** The most output tokens of each request. */
  maxTokens: Uint32Array;
  /** KV slot of each of the rank's rows, `[numTokens]`. */
  slotMapping: Uint32Array;
  /** What the engine half set in `SchedulerOutput.captureMetadata`. */
  captureMetadata: Uint32Array | null;
}>;

/** What a worker half is given when it is made. */
export type CaptureWorkerContext = Readonly<{
  /** Ranks repeat each other's work; the engine takes the rows of rank 0. */
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
   * `routedExperts` itself must record it; `pack` does without it. Absent: the router writes to `routedExperts`.
   */
  recordRows?: (commands: CommandRecorder, numTokens: number) => void;
}>;

/** `byteLength` bytes of a device buffer, from `byteOffset` on (absent = 0). */
export type DeviceRange = Readonly<{ buffer: DeviceBuffer; byteOffset?: number; byteLength: number }>;

/**
 * What a design reads while the device's queue stands still, and takes in before anything else happens. `bytes` is
 * valid only inside the call.
 */
export interface BlockingReads {
  /** Before the forward pass. */
  readBefore(step: WorkerStep): DeviceRange;
  takeBefore(step: WorkerStep, bytes: Uint8Array): void;

  /** After the forward pass, before the step's results are read. `null`: this rank reads nothing more in this step. */
  readAfter(step: WorkerStep): DeviceRange | null;
  takeAfter(step: WorkerStep, bytes: Uint8Array): void;
}

/**
 * The half that lives with the model runner. It is synchronous like the engine half: the runner waits for the device in
 * its place.
 */
export interface CaptureWorkerHalf {
  /** Name of the design. */
  readonly design: string;
  /** For a design that waits for the device in every step: the runner then keeps one step in flight. */
  readonly blockingReads?: BlockingReads;

  /**
   * Adds its kernels to the step's own command buffer, behind the router. Returns what to read back with the step: at
   * most as many bytes as `pack.packed` has, offset and length in whole words. `null`: nothing.
   */
  record(step: WorkerStep, commands: CommandRecorder): DeviceRange | null;

  /**
   * The step's results are on the host: `bytes` is the range that `record` returned, valid only inside this call.
   * `numSampledTokens[i]` is how many tokens request `i` got: with drafts, rows behind them belong to rejected tokens.
   *
   * The rows that it returns fill an ArrayBuffer from its first byte on, which is given away: it goes to the engine's
   * thread, and comes back with `recycle`.
   */
  collect(step: WorkerStep, bytes: Uint8Array | null, numSampledTokens: Uint32Array): RoutedExpertDeltas | null;

  /**
   * Some requests ended, others lost their KV and may come back. Called before `record` of the step that tells it.
   * Earlier steps may be in flight: their `collect` comes later, and may still bring rows of both.
   */
  forget?(endedIndices: readonly number[], preemptedIndices: readonly number[]): void;

  /** Takes back the memory of an earlier `collect`. */
  recycle?(rows: ArrayBuffer): void;

  /** Absent: the half keeps nothing between steps. */
  liveCounts?(): CaptureLiveCounts;

  close?(): void;
}
