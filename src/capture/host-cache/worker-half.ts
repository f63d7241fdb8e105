/**
 * host-cache, worker half: rows of opted-in requests are packed, copied with the step, and kept on the worker's host by
 * absolute position. When a request reaches the one limit that the worker knows, its `maxTokens` or the model's length,
 * all its rows leave with that step's output. EOS and stop tokens are the engine's affair: the worker never hears of
 * such an end in time.
 */

import type {
  CaptureLiveCounts,
  CaptureWorkerContext,
  CaptureWorkerHalf,
  DeviceRange,
  WorkerStep,
} from '../../contract/capture.ts';
import type { CommandRecorder } from '../../contract/device.ts';
import type { RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import { BytePool } from '../byte-pool.ts';
import { acceptedTokens, capturedRows } from '../captured-spans.ts';
import { RowPacker } from '../pack-rows.ts';
import type { RowShape } from '../row-shape.ts';
import { rowShape } from '../row-shape.ts';
import { SpanWriter } from '../spans.ts';
import { CachedRows } from './cached-rows.ts';

type Finish = Readonly<{ requestIndex: number; cache: CachedRows; start: number; end: number }>;

export class HostCacheWorkerHalf implements CaptureWorkerHalf {
  readonly design = 'host-cache';
  readonly #shape: RowShape;
  readonly #maxModelLen: number;
  readonly #packer: RowPacker;
  readonly #buffers: BytePool = new BytePool();
  readonly #cacheBuffers: BytePool;
  readonly #caches: Map<number, CachedRows> = new Map();

  constructor(context: CaptureWorkerContext) {
    this.#shape = rowShape(context.model);
    this.#maxModelLen = context.engine.maxModelLen;
    this.#packer = new RowPacker(context);
    this.#cacheBuffers = new BytePool(context.engine.maxNumSeqs);
  }

  /**
   * Caches are made here and not in `collect`, so that a step still in flight cannot bring back a request that is over.
   */
  record(step: WorkerStep, commands: CommandRecorder): DeviceRange | null {
    for (let i = 0; i < step.numRequests; i++) {
      const index = step.requestIndices[i]!;
      if (capturedRows(step, i) === 0 || this.#caches.has(index)) continue;
      this.#caches.set(index, new CachedRows(this.#shape, this.#cacheBuffers));
    }
    return this.#packer.packWanted(step, commands);
  }

  collect(step: WorkerStep, bytes: Uint8Array | null, numSampledTokens: Uint32Array): RoutedExpertDeltas | null {
    if (bytes === null) return null;
    const { bytesPerRow } = this.#shape;
    const finishes: Finish[] = [];
    let packedRow = 0;
    for (let i = 0; i < step.numRequests; i++) {
      const packed = capturedRows(step, i);
      const accepted = acceptedTokens(step, i, numSampledTokens[i]!);
      const skipped = step.tokenCounts[i]! - packed;
      const cache = this.#caches.get(step.requestIndices[i]!);
      if (packed > 0 && cache !== undefined) {
        const kept = Math.max(0, accepted - skipped);
        const rows = bytes.subarray(packedRow * bytesPerRow, (packedRow + kept) * bytesPerRow);
        if (kept > 0) cache.write(step.tokenStarts[i]! + skipped, rows);
        const end = step.tokenStarts[i]! + accepted;
        if (numSampledTokens[i]! > 0 && this.#isAtLimit(step, i, end + 1)) {
          finishes.push({ requestIndex: step.requestIndices[i]!, cache, start: step.promptStarts[i]!, end });
        }
      }
      packedRow += packed;
    }
    return finishes.length === 0 ? null : this.#emit(finishes);
  }

  /**
   * A preempted request keeps its rows: positions that it computed stay known, whether it computes or hits them when it
   * is back.
   */
  forget(endedIndices: readonly number[]): void {
    for (const index of endedIndices) {
      this.#caches.get(index)?.free();
      this.#caches.delete(index);
    }
  }

  recycle(rows: ArrayBuffer): void {
    this.#buffers.give(rows);
  }

  liveCounts(): CaptureLiveCounts {
    let bytes = 0;
    for (const cache of this.#caches.values()) bytes += cache.byteLength;
    return { requests: this.#caches.size, bytes };
  }

  /** `numTokens` counts the tokens just sampled. */
  #isAtLimit(step: WorkerStep, i: number, numTokens: number): boolean {
    return numTokens - step.numPromptTokens[i]! >= step.maxTokens[i]! || numTokens >= this.#maxModelLen;
  }

  #emit(finishes: readonly Finish[]): RoutedExpertDeltas {
    const { bytesPerRow } = this.#shape;
    const ranges = finishes.flatMap(({ requestIndex, cache, start, end }) =>
      cache.present(start, end).map(([from, to]) => ({ requestIndex, cache, from, to })),
    );
    const numRows = ranges.reduce((sum, { from, to }) => sum + to - from, 0);
    const rows = new Uint8Array(this.#buffers.take(numRows * bytesPerRow));
    const spans = new SpanWriter(ranges.length);
    for (const { requestIndex, cache, from, to } of ranges) {
      rows.set(cache.read(from, to), spans.numRows * bytesPerRow);
      spans.add(requestIndex, from, to - from);
    }
    return spans.deltas(rows);
  }
}
