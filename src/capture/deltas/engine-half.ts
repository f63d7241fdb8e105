/**
 * deltas, engine half.
 *
 * Source    RFC vllm#38079, the proposed design.
 * Store     none but the request's own rows: pages by position, appended as outputs arrive.
 * Key       (request, position).
 * Leaves    with the output of the step that computed them; joined (as a list, without a copy) when the request ends.
 * Gives up  nothing of L1–L8, except that rows of prefix-cached tokens are not computed and so are reported missing
 *           (`computed-only`, the RFC's scope).
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { RowShape } from '../row-shape.ts';
import { rowShape, viewRows } from '../row-shape.ts';
import { RowAccumulator } from './row-accumulator.ts';
import { SPAN_LENGTH } from './span.ts';

export class DeltasEngineHalf implements CaptureEngineHalf {
  readonly design = 'deltas';
  readonly #shape: RowShape;
  readonly #rowsPerPage: number;
  readonly #accumulators: Map<number, RowAccumulator> = new Map();

  constructor(model: ModelConfig, engine: EngineConfig) {
    this.#shape = rowShape(model);
    this.#rowsPerPage = engine.blockSize;
  }

  wants(request: CaptureRequest): boolean {
    return request.returnRoutedExperts;
  }

  usablePrefix(_request: CaptureRequest, hitBlockIds: readonly number[]): number {
    return hitBlockIds.length;
  }

  /** Appends each span to its request. Work and memory are proportional to the rows of this step. */
  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    const deltas = output.routedExpertDeltas;
    if (deltas === null) return;
    const rows = viewRows(this.#shape, deltas.rows, deltas.numRows);
    let row = 0;
    for (let i = 0; i < deltas.indexLength; i += SPAN_LENGTH) {
      const requestIndex = deltas.index[i]!;
      const position = deltas.index[i + 1]!;
      const count = deltas.index[i + 2]!;
      if (live(requestIndex) !== null) this.#accumulator(requestIndex).write(position, count, rows, row);
      row += count;
    }
  }

  take(request: CaptureRequest, _numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (finishReason === null) return null;
    return this.#accumulator(request.index).take(request.routedExpertsPromptStart, request.numTokens - 1);
  }

  release(request: CaptureRequest): void {
    this.#accumulators.delete(request.index);
  }

  liveCounts(): CaptureLiveCounts {
    let numPages = 0;
    for (const accumulator of this.#accumulators.values()) numPages += accumulator.numPages;
    return { requests: this.#accumulators.size, bytes: numPages * this.#rowsPerPage * this.#shape.bytesPerRow };
  }

  onPrefixHit(): void {}
  onScheduled(): void {}
  onPreempt(): void {}
  onBlockEvicted(): void {}
  onCacheReset(): void {}
  close(): void {}

  #accumulator(requestIndex: number): RowAccumulator {
    let accumulator = this.#accumulators.get(requestIndex);
    if (accumulator === undefined) {
      accumulator = new RowAccumulator(this.#shape, this.#rowsPerPage);
      this.#accumulators.set(requestIndex, accumulator);
    }
    return accumulator;
  }
}
