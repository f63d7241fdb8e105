/**
 * Stands between the engine and a design's engine half, and sees what one asks of the other (L5, L6).
 *
 * The copy meter tells how much the half copies. Inside the scheduler's step a half may copy the rows that the step
 * brought, each once, and nothing else. When cached blocks go, it may move what is left of their
 * rows: in all no more than ever came. Rows that come with KV are copied between two steps.
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../contract/capture.ts';
import type { FinishReason } from '../contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { CaptureRequest } from '../contract/request.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import type { DesignName, ModelConfig } from '../contract/config.ts';
import { rowShape } from '../capture/row-shape.ts';
import { copiedBytes } from './copy-meter.ts';
import type { Judge } from './judge.ts';

export class EngineHalfMonitor implements CaptureEngineHalf {
  readonly design: DesignName;
  readonly #half: CaptureEngineHalf;
  readonly #judge: Judge;
  readonly #bytesPerRow: number;
  /** Bytes that evictions may still move. */
  #movableBytes = 0;
  /** Of the steps in flight, by step id. */
  readonly #tokensOfStep: Map<number, number> = new Map();
  #someoneAsked = false;

  constructor(half: CaptureEngineHalf, model: ModelConfig, judge: Judge) {
    this.design = half.design;
    this.#half = half;
    this.#judge = judge;
    this.#bytesPerRow = rowShape(model).bytesPerRow;
  }

  wants(request: CaptureRequest): boolean {
    const wants = this.#half.wants(request);
    if (wants && !request.returnRoutedExperts) {
      this.#judge.wrong('L5', `${this.design} works for "${request.requestId}", which did not opt in`);
    }
    this.#someoneAsked ||= request.returnRoutedExperts;
    return wants;
  }

  usablePrefix(request: CaptureRequest, hitBlockIds: readonly number[]): number {
    return this.#copying(0, () => this.#half.usablePrefix(request, hitBlockIds));
  }

  acceptsExternalKv(request: CaptureRequest, hasRows: boolean): boolean {
    return this.#half.acceptsExternalKv?.(request, hasRows) === true;
  }

  onExternalKv(request: CaptureRequest, from: number, to: number, rows: RoutedRows | null): void {
    this.#half.onExternalKv!(request, from, to, rows);
    this.#movableBytes += (to - from) * this.#bytesPerRow;
  }

  onBlocksCached(request: CaptureRequest, firstBlock: number): void {
    this.#copying(0, () => this.#half.onBlocksCached?.(request, firstBlock));
  }

  onPrefixHit(request: CaptureRequest, numHitBlocks: number): void {
    this.#copying(0, () => this.#half.onPrefixHit(request, numHitBlocks));
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void {
    this.#worked('onScheduled');
    this.#tokensOfStep.set(step.stepId, step.totalNumScheduledTokens);
    this.#copying(0, () => this.#half.onScheduled(step, requests, stepPositions));
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    this.#worked('onStepOutput');
    const numRows = output.routedExpertDeltas?.numRows ?? 0;
    const numBytes = numRows * this.#bytesPerRow;
    this.#movableBytes += numBytes;
    this.#copying(numBytes, () => this.#half.onStepOutput(output, live));
    const numTokens = this.#tokensOfStep.get(output.stepId) ?? 0;
    this.#tokensOfStep.delete(output.stepId);
    if (numRows > numTokens) {
      const what = `step ${output.stepId} ran ${numTokens} tokens and brought ${numRows} rows into the scheduler's step`;
      this.#judge.wrong('L6', what);
    }
  }

  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    return this.#copying(0, () => this.#half.take(request, numNewTokens, finishReason));
  }

  onPreempt(request: CaptureRequest): void {
    this.#copying(0, () => this.#half.onPreempt(request));
  }

  release(request: CaptureRequest): void {
    this.#copying(0, () => this.#half.release(request));
  }

  onBlockEvicted(blockId: number): void {
    this.#worked('onBlockEvicted');
    const before = copiedBytes();
    this.#copying(this.#movableBytes, () => this.#half.onBlockEvicted(blockId));
    this.#movableBytes -= copiedBytes() - before;
  }

  onCacheReset(): void {
    this.#copying(0, () => this.#half.onCacheReset());
  }

  onStepsLost(): void {
    this.#tokensOfStep.clear();
    this.#half.onStepsLost?.();
  }

  liveCounts(): CaptureLiveCounts {
    return this.#half.liveCounts();
  }

  close(): void {
    this.#half.close();
  }

  #copying<T>(most: number, call: () => T): T {
    const before = copiedBytes();
    const result = call();
    const copied = copiedBytes() - before;
    if (copied > most) {
      this.#judge.wrong(
        'L6',
        `${this.design} copies ${copied} bytes inside the scheduler's step, of which ${most} are due`,
      );
    }
    return result;
  }

  #worked(what: string): void {
    if (!this.#someoneAsked) this.#judge.wrong('L5', `the scheduler called ${what} although nobody opted in`);
  }
}
