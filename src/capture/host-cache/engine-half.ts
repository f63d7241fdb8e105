/**
 * host-cache, engine half.
 *
 * Source    vllm#39917 (RFC #39701), in release 0.21.0 only; reverted by #42434.
 * Store     one host cache per request, in the worker; here nothing but rows that have just arrived. The source keeps int16, ours is
 *           `uint8` for up to 256 experts, else `uint16`.
 * Key       (request, absolute position).
 * Leaves    with the output of the step in which the *worker* takes the request to end; here they are attached to its last output.
 * Gives up  rows of a request that ends otherwise than by length: EOS, a stop token, an abort; rows of tokens that another request's
 *           cached block spared it; L6: the last output copies all of the request's rows at once; and L9 after a cache reset: the worker
 *           does not hear that an output was thrown away.
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { RowPages } from '../row-pages.ts';
import type { RowShape } from '../row-shape.ts';
import { rowShape, viewRows } from '../row-shape.ts';
import { SPAN_LENGTH } from './span.ts';

export class HostCacheEngineHalf implements CaptureEngineHalf {
  readonly design = 'host-cache';
  readonly #shape: RowShape;
  readonly #rowsPerPage: number;
  /** Requests whose rows arrived with the output that is being taken in. */
  readonly #arrived: Map<number, RowPages> = new Map();

  constructor(model: ModelConfig, engine: EngineConfig) {
    this.#shape = rowShape(model);
    this.#rowsPerPage = engine.blockSize;
  }

  wants(request: CaptureRequest): boolean {
    return request.returnRoutedExperts;
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    const deltas = output.routedExpertDeltas;
    if (deltas === null) return;
    const rows = viewRows(this.#shape, deltas.rows, deltas.numRows);
    let row = 0;
    for (let i = 0; i < deltas.indexLength; i += SPAN_LENGTH) {
      const index = deltas.index[i]!;
      const numRows = deltas.index[i + 2]!;
      if (live(index) !== null) this.#pages(index).write(deltas.index[i + 1]!, numRows, rows, row);
      row += numRows;
    }
  }

  take(request: CaptureRequest, _numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (finishReason === null) return null;
    const start = request.routedExpertsPromptStart;
    return this.#pages(request.index).take(start, Math.max(start, request.numTokens - 1));
  }

  release(request: CaptureRequest): void {
    this.#arrived.delete(request.index);
  }

  liveCounts(): CaptureLiveCounts {
    let bytes = 0;
    for (const pages of this.#arrived.values()) bytes += pages.byteLength;
    return { requests: this.#arrived.size, bytes };
  }

  onPrefixHit(): void {}
  onScheduled(): void {}
  onPreempt(): void {}
  onCacheReset(): void {}
  close(): void {}

  #pages(requestIndex: number): RowPages {
    let pages = this.#arrived.get(requestIndex);
    if (pages === undefined) {
      pages = new RowPages(this.#shape, this.#rowsPerPage);
      this.#arrived.set(requestIndex, pages);
    }
    return pages;
  }
}
