/** An engine half with a witness: passes every call on, and notes what the laws are judged by. */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../src/contract/capture.ts';
import type { DesignName } from '../../src/contract/config.ts';
import type { FinishReason } from '../../src/contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { CaptureRequest } from '../../src/contract/request.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';

type TypedArrayPrototype = {
  set: (this: Uint8Array, source: ArrayLike<number>, offset?: number) => void;
  slice: (this: Uint8Array, from?: number, to?: number) => Uint8Array;
};

/** Runs `run`, and answers its result and the bytes that typed arrays copied meanwhile. */
function meterCopies<T>(run: () => T): readonly [result: T, bytes: number] {
  const prototype = Object.getPrototypeOf(Uint8Array.prototype) as TypedArrayPrototype;
  const { set, slice } = prototype;
  let bytes = 0;
  prototype.set = function (source, offset) {
    bytes += source.length * this.BYTES_PER_ELEMENT;
    set.call(this, source, offset);
  };
  prototype.slice = function (from, to) {
    const copy = slice.call(this, from, to);
    bytes += copy.byteLength;
    return copy;
  };
  try {
    const result = run();
    return [result, bytes];
  } finally {
    prototype.set = set;
    prototype.slice = slice;
  }
}

export class WatchedHalf implements CaptureEngineHalf {
  readonly design: DesignName;
  readonly #half: CaptureEngineHalf;
  /** Requests whose last `take` found them without a block table. */
  readonly endedWithoutBlocks: Set<string> = new Set();
  /** Requests that the half wants. */
  readonly wanted: Set<string> = new Set();
  /** The most bytes that one call to the half copied. */
  mostBytesCopied = 0;

  constructor(half: CaptureEngineHalf) {
    this.#half = half;
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
    this.#watch(() => this.#half.onPrefixHit(request, numHitBlocks));
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void {
    this.#watch(() => this.#half.onScheduled(step, requests, stepPositions));
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    this.#watch(() => this.#half.onStepOutput(output, live));
  }

  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (finishReason !== null && request.blockIds.length === 0) this.endedWithoutBlocks.add(request.requestId);
    return this.#watch(() => this.#half.take(request, numNewTokens, finishReason));
  }

  onPreempt(request: CaptureRequest): void {
    this.#watch(() => this.#half.onPreempt(request));
  }

  release(request: CaptureRequest): void {
    this.#half.release(request);
  }

  onBlockEvicted(blockId: number): void {
    this.#half.onBlockEvicted?.(blockId);
  }

  onCacheReset(): void {
    this.#half.onCacheReset();
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
    this.#half.close();
  }

  #watch<T>(run: () => T): T {
    const [result, bytes] = meterCopies(run);
    this.mostBytesCopied = Math.max(this.mostBytesCopied, bytes);
    return result;
  }
}
