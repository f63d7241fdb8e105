/**
 * Stands between the engine and a design's engine half, and checks the calls and the copies of the half (L5, L6, L9).
 *
 * The copy meter tells how much the half copies. Inside the scheduler's step the half may copy the rows that the step
 * brought, each twice (to memory of its own, and from there to its place), and nothing else. When a cached block is
 * evicted, it may move rows, in total no more than ever came. Rows that come with KV are copied between two steps. At a
 * request's end it may join the rows of a block that was computed in parts, one block for each preemption.
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { EvictedRows } from '../../contract/kv-connector.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import { DEFAULT_PREFIX_ROWS, prefixRowsPolicies } from '../../capture/deltas/prefix-rows.ts';
import { rowShape } from '../../capture/row-shape.ts';
import type { SharedRows } from '../../capture/shm-flock/shared-rows.ts';
import { copiedBytes } from './copy-meter.ts';
import { FollowedBlocks } from './followed-blocks.ts';
import type { Judge } from './judge.ts';
import type { TestedDesign } from '../tested-design.ts';
import type { VirtualLock } from '../virtual/virtual-lock.ts';

export type Monitored = Readonly<{
  half: CaptureEngineHalf;
  model: ModelConfig;
  engine: EngineConfig;
  judge: Judge;
  /** Whether rows stay with cached blocks for later requests. */
  keepsRows: boolean;
}>;

export class EngineHalfMonitor implements CaptureEngineHalf {
  readonly design: string;
  readonly #half: CaptureEngineHalf;
  readonly #judge: Judge;
  readonly #bytesPerRow: number;
  readonly #bytesPerBlock: number;
  /** Bytes that evictions may still move. */
  #movableBytes = 0;
  /** How often each live wanted request has lost its blocks. */
  readonly #numTablesLost: Map<number, number> = new Map();
  /** Tokens of each step in flight, by step id. */
  readonly #tokensOfStep: Map<number, number> = new Map();
  readonly #followed: FollowedBlocks;
  /** Live wanted requests, and whether there was one since the last cache reset. */
  readonly #wanted: Set<number> = new Set();
  #wasWanted = false;

  constructor({ half, model, engine, judge, keepsRows }: Monitored) {
    this.design = half.design;
    this.#half = half;
    this.#judge = judge;
    this.#bytesPerRow = rowShape(model).bytesPerRow;
    this.#bytesPerBlock = engine.blockSize * this.#bytesPerRow;
    this.#followed = new FollowedBlocks({ blockSize: engine.blockSize, judge, keepsRows });
  }

  wants(request: CaptureRequest): boolean {
    const wants = this.#half.wants(request);
    if (wants && !request.returnRoutedExperts) {
      this.#judge.wrong('L5', `${this.design} works for "${request.requestId}", which did not opt in`);
    }
    if (wants) {
      this.#wanted.add(request.index);
      this.#wasWanted = true;
    }
    return wants;
  }

  hasRows(request: CaptureRequest, blockId: number, ordinal: number): boolean {
    this.#mentions(request, 'hasRows');
    return this.#half.hasRows?.(request, blockId, ordinal) ?? true;
  }

  get needsRows(): boolean {
    return this.#half.needsRows === true;
  }

  get followsBlocks(): boolean {
    return this.#half.followsBlocks === true;
  }

  acceptsExternalKv(request: CaptureRequest, hasRows: boolean): boolean {
    this.#mentions(request, 'acceptsExternalKv');
    return this.#half.acceptsExternalKv?.(request, hasRows) === true;
  }

  /** The request has its blocks and waits for KV that is loaded into them. */
  onLoadBegun(request: CaptureRequest): void {
    if (this.#wanted.has(request.index)) this.#followed.onLoadBegun(request);
  }

  onExternalKv(request: CaptureRequest, from: number, to: number, rows: RoutedRows | null): void {
    this.#mentions(request, 'onExternalKv');
    if (this.followsBlocks) this.#followed.onExternalKv(request, from);
    this.#half.onExternalKv?.(request, from, to, rows);
    this.#movableBytes += (to - from) * this.#bytesPerRow;
  }

  get takesTierKv(): boolean {
    return this.#half.takesTierKv === true;
  }

  evictedRows(blockId: number): EvictedRows | null {
    this.#followed.onRowsAsked(blockId);
    return this.#copying(0, () => this.#half.evictedRows?.(blockId) ?? null);
  }

  onBlocksCached(request: CaptureRequest, firstBlock: number): void {
    this.#mentions(request, 'onBlocksCached');
    this.#followed.onBlocksCached(request, firstBlock);
    this.#copying(0, () => this.#half.onBlocksCached?.(request, firstBlock));
  }

  onPrefixHit(request: CaptureRequest, numHitBlocks: number): void {
    this.#mentions(request, 'onPrefixHit');
    this.#copying(0, () => this.#half.onPrefixHit?.(request, numHitBlocks));
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void {
    if (requests.length === 0) this.#judge.wrong('L5', `the scheduler told of step ${step.stepId}, which nobody wants`);
    for (const request of requests) this.#mentions(request, 'onScheduled');
    this.#followed.onScheduled(step, requests, stepPositions);
    this.#tokensOfStep.set(step.stepId, step.totalNumScheduledTokens);
    this.#copying(0, () => this.#half.onScheduled?.(step, requests, stepPositions));
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    if (!this.#tokensOfStep.has(output.stepId)) {
      this.#judge.wrong('L5', `the scheduler told of the output of step ${output.stepId}, and not of the step`);
    }
    const numRows = output.routedExpertDeltas?.numRows ?? 0;
    const numBytes = numRows * this.#bytesPerRow;
    this.#movableBytes += numBytes;
    this.#copying(2 * numBytes, () => this.#half.onStepOutput(output, live));
    const numTokens = this.#tokensOfStep.get(output.stepId) ?? 0;
    this.#tokensOfStep.delete(output.stepId);
    if (numRows > numTokens) {
      const counts = `${numTokens} tokens and brought ${numRows} rows`;
      const what = `step ${output.stepId} ran ${counts} into the scheduler's step`;
      this.#judge.wrong('L6', what);
    }
  }

  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    this.#mentions(request, 'take');
    const joined = (this.#numTablesLost.get(request.index) ?? 0) * this.#bytesPerBlock;
    return this.#copying(joined, () => this.#half.take(request, numNewTokens, finishReason));
  }

  onPreempt(request: CaptureRequest): void {
    this.#mentions(request, 'onPreempt');
    this.#followed.onTableLost(request);
    this.#numTablesLost.set(request.index, (this.#numTablesLost.get(request.index) ?? 0) + 1);
    this.#copying(0, () => this.#half.onPreempt?.(request));
  }

  release(request: CaptureRequest): void {
    this.#mentions(request, 'release');
    this.#followed.onTableLost(request);
    this.#wanted.delete(request.index);
    this.#numTablesLost.delete(request.index);
    this.#copying(0, () => this.#half.release(request));
  }

  onBlockEvicted(blockId: number): void {
    this.#followed.onBlockEvicted(blockId);
    const before = copiedBytes();
    this.#copying(this.#movableBytes, () => this.#half.onBlockEvicted?.(blockId));
    this.#movableBytes -= copiedBytes() - before;
  }

  onCacheReset(): void {
    if (!this.#wasWanted) this.#judge.wrong('L5', 'the scheduler told of a cache reset that concerns no request');
    this.#wasWanted = this.#wanted.size > 0;
    this.#followed.onCacheReset();
    this.#copying(0, () => this.#half.onCacheReset?.());
  }

  onStepsLost(): void {
    if (this.#tokensOfStep.size === 0)
      this.#judge.wrong('L5', 'the scheduler told of lost steps that it never told of');
    this.#tokensOfStep.clear();
    this.#half.onStepsLost?.();
  }

  liveCounts(): CaptureLiveCounts {
    return this.#half.liveCounts();
  }

  close(): void {
    this.#half.close?.();
  }

  #mentions(request: CaptureRequest, what: string): void {
    if (this.#wanted.has(request.index)) return;
    this.#judge.wrong('L5', `the scheduler called ${what} for "${request.requestId}", which the design does not want`);
  }

  #copying<T>(most: number, call: () => T): T {
    const before = copiedBytes();
    const result = call();
    const copied = copiedBytes() - before;
    if (copied > most) {
      const what = `${this.design} copies ${copied} bytes inside the scheduler's step, of which ${most} are due`;
      this.#judge.wrong('L6', what);
    }
    return result;
  }
}

type HalfOfStorm = Readonly<{
  tested: TestedDesign;
  model: ModelConfig;
  engine: EngineConfig;
  judge: Judge;
  lock: VirtualLock;
  sharedRows: () => SharedRows;
}>;

/** The tested design's engine half, as its mutation changes it, under watch. `null`: the design captures nothing. */
export function watchedHalf({ tested, model, engine, judge, lock, sharedRows }: HalfOfStorm): EngineHalfMonitor | null {
  const { design, mutation, prefixRows } = tested;
  const half = design.engineHalf(model, engine, { sharedRows, ...(prefixRows === null ? {} : { prefixRows }) });
  if (half === null) return null;
  const keepsRows = design.name === 'deltas' && prefixRowsPolicies[prefixRows ?? DEFAULT_PREFIX_ROWS].keeps;
  const mutated = mutation.engineHalf?.(half, model, engine, lock) ?? half;
  return new EngineHalfMonitor({ half: mutated, model, engine, judge, keepsRows });
}
