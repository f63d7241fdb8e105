/** An engine half with a witness: passes every call on, and notes what the laws are judged by. */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../src/contract/capture.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import type { ModelConfig } from '../../src/contract/config.ts';
import type { FinishReason } from '../../src/contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { CaptureRequest } from '../../src/contract/request.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { copiedBytes, installCopyMeter } from '../../src/sim/laws/copy-meter.ts';

export class WatchedHalf implements CaptureEngineHalf {
  readonly design: string;
  readonly #half: CaptureEngineHalf;
  /** Requests whose last `take` found them without a block table. */
  readonly endedWithoutBlocks: Set<string> = new Set();
  /** Requests that the half wants. */
  readonly wanted: Set<string> = new Set();
  /** The most bytes that one call to the half copied. */
  mostBytesCopied = 0;
  /** Calls inside a step of the scheduler that copied more than the rows that the step brought, each twice. */
  callsWithLongCopies = 0;
  readonly #bytesPerRow: number;

  constructor(half: CaptureEngineHalf, model: ModelConfig) {
    this.#half = half;
    this.#bytesPerRow = rowShape(model).bytesPerRow;
    this.design = half.design;
  }

  wants(request: CaptureRequest): boolean {
    const wants = this.#half.wants(request);
    if (wants) this.wanted.add(request.requestId);
    return wants;
  }

  hasRows(request: CaptureRequest, blockId: number, ordinal: number): boolean {
    return this.#half.hasRows?.(request, blockId, ordinal) ?? true;
  }

  get needsRows(): boolean {
    return this.#half.needsRows === true;
  }

  get followsBlocks(): boolean {
    return this.#half.followsBlocks === true;
  }

  onPrefixHit(request: CaptureRequest, numHitBlocks: number): void {
    this.#watch(() => this.#half.onPrefixHit?.(request, numHitBlocks));
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void {
    this.#watch(() => this.#half.onScheduled?.(step, requests, stepPositions));
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    const numRows = output.routedExpertDeltas?.numRows ?? 0;
    // Each row twice: to memory of the half's own, and from there to its place.
    this.#watch(() => this.#half.onStepOutput(output, live), 2 * numRows * this.#bytesPerRow);
  }

  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (finishReason !== null && request.blockIds.length === 0) this.endedWithoutBlocks.add(request.requestId);
    return this.#watch(() => this.#half.take(request, numNewTokens, finishReason));
  }

  onPreempt(request: CaptureRequest): void {
    this.#watch(() => this.#half.onPreempt?.(request));
  }

  release(request: CaptureRequest): void {
    this.#watch(() => this.#half.release(request));
  }

  onBlockEvicted(blockId: number): void {
    this.#half.onBlockEvicted?.(blockId);
  }

  onCacheReset(): void {
    this.#half.onCacheReset?.();
  }

  onBlocksCached(request: CaptureRequest, firstBlock: number): void {
    this.#watch(() => this.#half.onBlocksCached?.(request, firstBlock));
  }

  onStepsLost(): void {
    this.#half.onStepsLost?.();
  }

  liveCounts(): CaptureLiveCounts {
    return this.#half.liveCounts();
  }

  close(): void {
    this.#half.close?.();
  }

  /** `due`: bytes that the call may copy. */
  #watch<T>(run: () => T, due: number = 0): T {
    const uninstall = installCopyMeter();
    const before = copiedBytes();
    try {
      return run();
    } finally {
      const bytes = copiedBytes() - before;
      uninstall();
      this.mostBytesCopied = Math.max(this.mostBytesCopied, bytes);
      if (bytes > due) this.callsWithLongCopies++;
    }
  }
}
