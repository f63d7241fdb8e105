/**
 * Stands between the engine and an engine half of the caller's own: what a hook does wrong ends the requests that it
 * concerns, and nothing else. The table of `contract/capture.ts` says which these are.
 *
 *     working ──a hook that concerns all fails, or the worker half──▶ switched off: the half hears nothing more
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { EngineConfig, ModelConfig, RowDtype } from '../../contract/config.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { EvictedRows } from '../../contract/kv-connector.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';
import { BrokenContract, callHook, closeQuietly, countsOf, designFailed, shown } from './hook-call.ts';
import { unwrapDeltas } from './payload.ts';
import { rowShape, type RowShape } from '../row-shape.ts';
import { problemOfRows } from './rows-check.ts';

/** A live request that asked for rows. */
type Asking = {
  readonly requestId: string;
  /** Of the rows that were handed out; `null`: none were. */
  dtype: RowDtype | null;
  rowsEnd: number;
  hasFailed: boolean;
};

const NOTHING: CaptureLiveCounts = { requests: 0, bytes: 0 };

export class GuardedEngineHalf implements CaptureEngineHalf {
  readonly design: string;
  readonly followsBlocks: boolean;
  readonly takesTierKv: boolean;
  /** Absent where the half has none: its absence means something. */
  readonly acceptsExternalKv?: (request: CaptureRequest, hasRows: boolean) => boolean;
  readonly onExternalKv?: (request: CaptureRequest, from: number, to: number, rows: RoutedRows | null) => void;
  readonly #blockSize: number;
  readonly #shape: RowShape;
  readonly #needsRows: boolean;
  /** `null`: switched off, because of `#failure`. */
  #half: CaptureEngineHalf | null;
  #failure: RoutedExpertsError | null = null;
  readonly #asking: Map<number, Asking> = new Map();
  #failures: Map<string, RoutedExpertsError> = new Map();

  constructor(
    design: string,
    half: CaptureEngineHalf,
    model: ModelConfig,
    { blockSize }: Pick<EngineConfig, 'blockSize'>,
  ) {
    this.design = design;
    this.#half = half;
    this.#blockSize = blockSize;
    this.takesTierKv = half.takesTierKv === true;
    this.#shape = rowShape(model);
    this.followsBlocks = half.followsBlocks === true;
    this.#needsRows = half.needsRows === true;
    if (half.acceptsExternalKv === undefined) return;
    this.acceptsExternalKv = (request, hasRows) =>
      this.#ofOne('acceptsExternalKv', request, false, (on) => on.acceptsExternalKv!(request, hasRows));
    this.onExternalKv = (request, from, to, rows) =>
      this.#ofOne('onExternalKv', request, undefined, (on) => on.onExternalKv?.(request, from, to, rows));
  }

  get needsRows(): boolean {
    return this.#half !== null && this.#needsRows;
  }

  /** Throws DESIGN_FAILED for a request that asks for rows and cannot have any: it is refused. */
  wants(request: CaptureRequest): boolean {
    const asks = request.returnRoutedExperts;
    try {
      if (this.#failure !== null) throw this.#failure;
      const isWanted = callHook(() => this.#half!.wants(request));
      if (typeof isWanted !== 'boolean') throw new BrokenContract(`it returned ${shown(isWanted)}; return a boolean`);
      if (isWanted && asks) this.#asking.set(request.index, newAsking(request));
      return isWanted;
    } catch (error) {
      const failure = this.#failure ?? designFailed(this.design, 'engineHalf.wants', error);
      if (asks) throw failure;
      if (this.#failure === null) this.#switchOff(failure);
      return false;
    }
  }

  hasRows(request: CaptureRequest, blockId: number, ordinal: number): boolean {
    return this.#ofOne('hasRows', request, true, (half) => half.hasRows?.(request, blockId, ordinal) ?? true);
  }

  onPrefixHit(request: CaptureRequest, numHitBlocks: number): void {
    this.#ofOne('onPrefixHit', request, undefined, (half) => half.onPrefixHit?.(request, numHitBlocks));
  }

  onBlocksCached(request: CaptureRequest, firstBlock: number): void {
    this.#ofOne('onBlocksCached', request, undefined, (half) => half.onBlocksCached?.(request, firstBlock));
  }

  onPreempt(request: CaptureRequest): void {
    this.#ofOne('onPreempt', request, undefined, (half) => half.onPreempt?.(request));
  }

  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    const asking = this.#asking.get(request.index);
    return this.#ofOne('take', request, null, (half) => {
      const rows = half.take(request, numNewTokens, finishReason);
      if (asking === undefined || asking.hasFailed) return null;
      // Before `rows` is looked at: a promise has no fields.
      if (rows instanceof Promise) return rows;
      const to = request.numTokens - 1;
      const due = { shape: this.#shape, from: asking.rowsEnd, dtype: asking.dtype, to };
      const problem = problemOfRows(rows, { ...due, isLast: finishReason !== null && finishReason !== 'error' });
      if (problem !== null) throw new BrokenContract(problem);
      if (rows === null) return null;
      asking.dtype = rows.dtype;
      asking.rowsEnd = rows.start + rows.count;
      return rows;
    });
  }

  release(request: CaptureRequest): void {
    this.#ofOne('release', request, undefined, (half) => half.release(request));
    this.#asking.delete(request.index);
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void {
    this.#ofAll('onScheduled', undefined, (half) => half.onScheduled?.(step, requests, stepPositions));
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    const deltas = output.routedExpertDeltas === null ? null : unwrapDeltas(output.routedExpertDeltas);
    if (typeof deltas === 'string') this.#switchOff(RoutedExpertsError.relayed('DESIGN_FAILED', deltas));
    else {
      const unwrapped = { ...output, routedExpertDeltas: deltas };
      this.#ofAll('onStepOutput', undefined, (half) => half.onStepOutput(unwrapped, live));
    }
  }

  evictedRows(blockId: number): EvictedRows | null {
    const rows = this.#ofAll('evictedRows', null, (half) => half.evictedRows?.(blockId) ?? null);
    if (rows === null) return null;
    const { entriesPerRow, dtype } = this.#shape;
    const length = this.#blockSize * entriesPerRow;
    const read = (): ReturnType<EvictedRows['read']> =>
      this.#ofAll('evictedRows', null, () => {
        const chunk = rows.read();
        const isBlock = chunk === null || (chunk.length === length && dtypeOf(chunk) === dtype);
        if (!isBlock) throw new BrokenContract(`its read returned no ${length} ids of ${dtype}, and not null`);
        return chunk;
      });
    return { from: rows.from, read };
  }

  onBlockEvicted(blockId: number): void {
    this.#ofAll('onBlockEvicted', undefined, (half) => half.onBlockEvicted?.(blockId));
  }

  onCacheReset(): void {
    this.#ofAll('onCacheReset', undefined, (half) => half.onCacheReset?.());
  }

  onStepsLost(): void {
    this.#ofAll('onStepsLost', undefined, (half) => half.onStepsLost?.());
  }

  liveCounts(): CaptureLiveCounts {
    return this.#ofAll('liveCounts', NOTHING, (half) => countsOf(half));
  }

  takeFailures(): ReadonlyMap<string, RoutedExpertsError> | null {
    if (this.#failures.size === 0) return null;
    const failures = this.#failures;
    this.#failures = new Map();
    return failures;
  }

  /** Nobody is left to hear of what it throws. */
  close(): void {
    closeQuietly(this.#half);
    this.#half = null;
  }

  /** A hook that concerns one request. */
  #ofOne<T>(hook: string, request: CaptureRequest, otherwise: T, call: (half: CaptureEngineHalf) => T): T {
    const half = this.#half;
    if (half === null) return otherwise;
    try {
      return callHook(() => call(half));
    } catch (error) {
      const failure = designFailed(this.design, `engineHalf.${hook}`, error);
      const asking = this.#asking.get(request.index);
      if (asking === undefined) this.#switchOff(failure);
      else this.#fail(asking, failure);
      return otherwise;
    }
  }

  /** A hook that concerns all requests. */
  #ofAll<T>(hook: string, otherwise: T, call: (half: CaptureEngineHalf) => T): T {
    const half = this.#half;
    if (half === null) return otherwise;
    try {
      return callHook(() => call(half));
    } catch (error) {
      this.#switchOff(designFailed(this.design, `engineHalf.${hook}`, error));
      return otherwise;
    }
  }

  /** Until the engine has ended the request, the half goes on hearing of it: it sees an abort like any other. */
  #fail(asking: Asking, failure: RoutedExpertsError): void {
    if (asking.hasFailed) return;
    asking.hasFailed = true;
    this.#failures.set(asking.requestId, failure);
  }

  #switchOff(failure: RoutedExpertsError): void {
    this.#failure ??= failure;
    this.close();
    for (const asking of this.#asking.values()) this.#fail(asking, this.#failure);
  }
}

function dtypeOf(chunk: Uint8Array | Uint16Array | Int32Array): RowDtype {
  if (chunk instanceof Int32Array) return 'int32';
  return chunk instanceof Uint16Array ? 'uint16' : 'uint8';
}

function newAsking({ requestId, routedExpertsPromptStart: rowsEnd }: CaptureRequest): Asking {
  return { requestId, dtype: null, rowsEnd, hasFailed: false };
}
