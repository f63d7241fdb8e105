/** Halves that do nothing but pass on: a mutant overrides the one call that it gets wrong. */

import type {
  BlockingReads,
  CaptureEngineHalf,
  CaptureLiveCounts,
  CaptureWorkerHalf,
  DeviceRange,
  WorkerStep,
} from '../../contract/capture.ts';
import type { CommandRecorder } from '../../contract/device.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { EvictedRows } from '../../contract/kv-connector.ts';
import type { ModelRunnerOutput, RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';

export class DelegatingEngineHalf implements CaptureEngineHalf {
  readonly design: string;
  protected readonly half: CaptureEngineHalf;

  constructor(half: CaptureEngineHalf) {
    this.design = half.design;
    this.half = half;
  }

  wants(request: CaptureRequest): boolean {
    return this.half.wants(request);
  }

  hasRows(request: CaptureRequest, blockId: number, ordinal: number): boolean {
    return this.half.hasRows?.(request, blockId, ordinal) ?? true;
  }

  get needsRows(): boolean {
    return this.half.needsRows === true;
  }

  get followsBlocks(): boolean {
    return this.half.followsBlocks === true;
  }

  get takesTierKv(): boolean {
    return this.half.takesTierKv === true;
  }

  evictedRows(blockId: number): EvictedRows | null {
    return this.half.evictedRows?.(blockId) ?? null;
  }

  onPrefixHit(request: CaptureRequest, numHitBlocks: number): void {
    this.half.onPrefixHit?.(request, numHitBlocks);
  }

  acceptsExternalKv(request: CaptureRequest, hasRows: boolean): boolean {
    return this.half.acceptsExternalKv?.(request, hasRows) === true;
  }

  onExternalKv(request: CaptureRequest, from: number, to: number, rows: RoutedRows | null): void {
    this.half.onExternalKv?.(request, from, to, rows);
  }

  onBlocksCached(request: CaptureRequest, firstBlock: number): void {
    this.half.onBlocksCached?.(request, firstBlock);
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void {
    this.half.onScheduled?.(step, requests, stepPositions);
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    this.half.onStepOutput(output, live);
  }

  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    return this.half.take(request, numNewTokens, finishReason);
  }

  onPreempt(request: CaptureRequest): void {
    this.half.onPreempt?.(request);
  }

  release(request: CaptureRequest): void {
    this.half.release(request);
  }

  onBlockEvicted(blockId: number): void {
    this.half.onBlockEvicted?.(blockId);
  }

  onCacheReset(): void {
    this.half.onCacheReset?.();
  }

  onStepsLost(): void {
    this.half.onStepsLost?.();
  }

  liveCounts(): CaptureLiveCounts {
    return this.half.liveCounts();
  }

  close(): void {
    this.half.close?.();
  }
}

export class DelegatingWorkerHalf implements CaptureWorkerHalf {
  readonly design: string;
  readonly blockingReads?: BlockingReads;
  protected readonly half: CaptureWorkerHalf;

  constructor(half: CaptureWorkerHalf) {
    this.design = half.design;
    if (half.blockingReads) this.blockingReads = half.blockingReads;
    this.half = half;
  }

  record(step: WorkerStep, commands: CommandRecorder): DeviceRange | null {
    return this.half.record(step, commands);
  }

  collect(step: WorkerStep, bytes: Uint8Array | null, numSampledTokens: Uint32Array): RoutedExpertDeltas | null {
    return this.half.collect(step, bytes, numSampledTokens);
  }

  forget(endedIndices: readonly number[], preemptedIndices: readonly number[]): void {
    this.half.forget?.(endedIndices, preemptedIndices);
  }

  recycle(rows: ArrayBuffer): void {
    this.half.recycle?.(rows);
  }

  liveCounts(): CaptureLiveCounts {
    return this.half.liveCounts?.() ?? { requests: 0, bytes: 0 };
  }

  close(): void {
    this.half.close?.();
  }
}
