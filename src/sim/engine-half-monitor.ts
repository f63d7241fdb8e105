/** Stands between the engine and a design's engine half, and sees what one asks of the other (L5, L6). */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../contract/capture.ts';
import type { FinishReason } from '../contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { CaptureRequest } from '../contract/request.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import type { DesignName } from '../contract/config.ts';
import type { Judge } from './judge.ts';

export class EngineHalfMonitor implements CaptureEngineHalf {
  readonly design: DesignName;
  readonly #half: CaptureEngineHalf;
  readonly #judge: Judge;
  /** Of the steps in flight, by step id. */
  readonly #tokensOfStep: Map<number, number> = new Map();
  #someoneAsked = false;

  constructor(half: CaptureEngineHalf, judge: Judge) {
    this.design = half.design;
    this.#half = half;
    this.#judge = judge;
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
    return this.#half.usablePrefix(request, hitBlockIds);
  }

  acceptsExternalKv(request: CaptureRequest, hasRows: boolean): boolean {
    return this.#half.acceptsExternalKv?.(request, hasRows) === true;
  }

  onExternalKv(request: CaptureRequest, from: number, to: number, rows: RoutedRows | null): void {
    this.#half.onExternalKv!(request, from, to, rows);
  }

  onBlocksCached(request: CaptureRequest, firstBlock: number): void {
    this.#half.onBlocksCached?.(request, firstBlock);
  }

  onPrefixHit(request: CaptureRequest, numHitBlocks: number): void {
    this.#half.onPrefixHit(request, numHitBlocks);
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void {
    this.#worked('onScheduled');
    this.#tokensOfStep.set(step.stepId, step.totalNumScheduledTokens);
    this.#half.onScheduled(step, requests, stepPositions);
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    this.#worked('onStepOutput');
    this.#half.onStepOutput(output, live);
    const numRows = output.routedExpertDeltas?.numRows ?? 0;
    const numTokens = this.#tokensOfStep.get(output.stepId) ?? 0;
    this.#tokensOfStep.delete(output.stepId);
    if (numRows > numTokens) {
      const what = `step ${output.stepId} ran ${numTokens} tokens and brought ${numRows} rows into the scheduler's step`;
      this.#judge.wrong('L6', what);
    }
  }

  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    return this.#half.take(request, numNewTokens, finishReason);
  }

  onPreempt(request: CaptureRequest): void {
    this.#half.onPreempt(request);
  }

  release(request: CaptureRequest): void {
    this.#half.release(request);
  }

  onBlockEvicted(blockId: number): void {
    this.#worked('onBlockEvicted');
    this.#half.onBlockEvicted(blockId);
  }

  onCacheReset(): void {
    this.#half.onCacheReset();
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

  #worked(what: string): void {
    if (!this.#someoneAsked) this.#judge.wrong('L5', `the scheduler called ${what} although nobody opted in`);
  }
}
