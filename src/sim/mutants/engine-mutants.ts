/** Engine halves that get one call wrong. */

import type { CaptureEngineHalf } from '../../contract/capture.ts';
import type { ModelConfig } from '../../contract/config.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { routedRows, rowAt } from '../../capture/routed-rows.ts';
import { allocateRows, rowShape, type RowShape } from '../../capture/row-shape.ts';
import type { Request } from '../../engine/request.ts';
import type { VirtualLock } from '../virtual/virtual-lock.ts';
import { DelegatingEngineHalf } from './delegates.ts';

/** Reads rows by the block table that the request had before its preemption; other requests hold these blocks then. */
export class ReadsFreedBlocks extends DelegatingEngineHalf {
  readonly #tables = new Map<number, readonly number[]>();

  override onPreempt(request: CaptureRequest): void {
    this.#tables.set(request.index, [...request.blockIds]);
    super.onPreempt(request);
  }

  override take(request: CaptureRequest, numNew: number, finish: FinishReason | null): RoutedRows | null {
    const table = this.#tables.get(request.index);
    if (finish === null || finish === 'abort' || table === undefined || request.blockIds.length > 0) {
      return super.take(request, numNew, finish);
    }
    return super.take(Object.create(request, { blockIds: { value: table } }) as CaptureRequest, numNew, finish);
  }
}

export class ForgetsOnPreemption extends DelegatingEngineHalf {
  override onPreempt(request: CaptureRequest): void {
    super.onPreempt(request);
    super.release(request);
  }
}

export class ForgetsOnAbort extends DelegatingEngineHalf {
  override take(request: CaptureRequest, numNew: number, finish: FinishReason | null): RoutedRows | null {
    const rows = super.take(request, numNew, finish);
    if (rows === null || finish !== 'abort' || rows.count === 0) return rows;
    return { ...rows, chunks: [], missing: [[rows.start, rows.start + rows.count]] };
  }
}

/** Never releases a request that is aborted with steps in flight. */
export class LeaksOnAbort extends DelegatingEngineHalf {
  override release(request: CaptureRequest): void {
    const { numInFlightTokens } = request as Request;
    if (numInFlightTokens === 0) super.release(request);
  }
}

/** Reads under a file lock when a request ends: at once if the lock is free, else when its holder lets go. */
export class LocksAtEnd extends DelegatingEngineHalf {
  readonly #lock: VirtualLock;

  constructor(half: CaptureEngineHalf, lock: VirtualLock) {
    super(half);
    this.#lock = lock;
  }

  override take(request: CaptureRequest, numNew: number, finish: FinishReason | null): RoutedRows | null {
    if (finish === null) return super.take(request, numNew, finish);
    if (!this.#lock.tryAcquire('engine')) this.#lock.acquire('engine');
    const rows = super.take(request, numNew, finish);
    this.#lock.release();
    return rows;
  }
}

/** Delivers missing rows as zeros. */
export class ZerosForMissing extends DelegatingEngineHalf {
  override take(request: CaptureRequest, numNew: number, finish: FinishReason | null): RoutedRows | null {
    const rows = super.take(request, numNew, finish);
    if (rows === null || rows.missing.length === 0) return rows;
    const zeros = allocateRows(rows, 1);
    const chunks = Array.from({ length: rows.count }, (_, i) => rowAt(rows, rows.start + i) ?? zeros);
    return { ...rows, rowsPerChunk: 1, chunkOrigin: rows.start, chunks, missing: [] };
  }
}

/** Counts a row for each prompt and output token; no forward pass computes that of the last one. */
export class CountsOneTooMany extends DelegatingEngineHalf {
  override take(request: CaptureRequest, numNew: number, finish: FinishReason | null): RoutedRows | null {
    const rows = super.take(request, numNew, finish);
    return rows === null ? null : { ...rows, count: rows.count + 1 };
  }
}

/** Delivers what a cache reset throws away, as if the request had only been preempted. */
export class KeepsStaleOutput extends DelegatingEngineHalf {
  readonly #requests: Request[] = [];

  override wants(request: CaptureRequest): boolean {
    this.#requests.push(request as Request);
    return super.wants(request);
  }

  override onCacheReset(): void {
    super.onCacheReset();
    for (const request of this.#requests) request.dropStaleOutput = false;
  }
}

/** Reads a table by KV slot, which is not filled for KV that another engine computed. */
export class ReadsSlotsOfExternalKv extends DelegatingEngineHalf {
  override acceptsExternalKv(): boolean {
    return true;
  }

  override onExternalKv(): void {}
}

/** Makes up the rows of loaded positions, whether rows come with the KV or not. */
export class MakesUpExternalRows extends DelegatingEngineHalf {
  readonly #shape: RowShape;

  constructor(half: CaptureEngineHalf, model: ModelConfig) {
    super(half);
    this.#shape = rowShape(model);
  }

  override acceptsExternalKv(): boolean {
    return true;
  }

  override onExternalKv(request: CaptureRequest, from: number, to: number): void {
    const chunk = allocateRows(this.#shape, to - from);
    for (let i = 0; i < chunk.length; i += 1) chunk[i] = i % this.#shape.topK;
    super.onExternalKv(request, from, to, routedRows(this.#shape, from, to, { chunks: [chunk] }));
  }
}

/** Returns the function that a mutation's `engineHalf` wants. */
export function wrapping(
  Half: new (half: CaptureEngineHalf) => CaptureEngineHalf,
): (half: CaptureEngineHalf) => CaptureEngineHalf {
  return (half) => new Half(half);
}
