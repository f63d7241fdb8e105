/**
 * deltas, engine half as the RFC proposes it; policy `computed-only`.
 *
 * Source    RFC vllm#38079.
 * Store     The rows of each request that opted in, by position. Nothing else is kept.
 * Key       (request, position).
 * Leaves    Rows come with the output of the step that computed them, and are appended. They are joined when the
 *           request ends.
 * Gives up  Rows of tokens that the request did not compute itself, but found in the prefix cache. They are reported
 *           missing (L4).
 * Costs     One copy of each row of a request that opted in, and nothing for any other request (L5).
 *
 * It differs from the RFC in two things. Rows are overlaid by position when they arrive: a preempted request computes
 * its positions again, and a list would hold them twice. Joining makes a list of pages and copies no row, because it
 * runs in the scheduler's step (L6).
 *
 * What goes beyond the RFC stands in prefix-rows/. The default policy, `complete`, has an engine half of its own there,
 * for the same worker half.
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { DesignName, EngineConfig, ModelConfig } from '../../contract/config.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { PayloadRows } from '../payload-rows.ts';
import { RowPages } from '../row-pages.ts';
import type { RowShape } from '../row-shape.ts';
import { rowShape } from '../row-shape.ts';
import { SpanReader } from '../spans.ts';

/** To get memory for one block takes as long as to copy its rows. */
const BLOCKS_PER_PAGE = 4;

export class DeltasEngineHalf implements CaptureEngineHalf {
  readonly design: DesignName = 'deltas';
  readonly #shape: RowShape;
  readonly #rowsPerPage: number;
  readonly #payload: PayloadRows;
  readonly #requests: Map<number, RowPages> = new Map();

  constructor(model: ModelConfig, engine: EngineConfig) {
    this.#shape = rowShape(model);
    this.#rowsPerPage = BLOCKS_PER_PAGE * engine.blockSize;
    this.#payload = new PayloadRows(this.#shape);
  }

  /** Each request opts in for itself. */
  wants(request: CaptureRequest): boolean {
    return request.returnRoutedExperts;
  }

  /**
   * Appends each span to the rows of its request, over rows of the same positions. The spans of a request that has
   * ended, or whose output a cache reset threw away, are left out: such a request is not `live`.
   */
  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    const deltas = output.routedExpertDeltas;
    if (deltas === null) return;
    this.#payload.load(deltas);
    for (const span = new SpanReader(deltas); span.next();) {
      if (live(span.requestIndex) === null) continue;
      this.#rowsOf(span.requestIndex).write(span.position, span.count, this.#payload.rows(span.row, span.count));
    }
  }

  /**
   * Joins the rows of a request that ends: positions `[prompt start, numTokens − 1)`, and which of them are missing.
   */
  take(request: CaptureRequest, _numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (finishReason === null) return null;
    return this.#rowsOf(request.index).take(request.routedExpertsPromptStart, request.numTokens - 1);
  }

  release(request: CaptureRequest): void {
    this.#requests.delete(request.index);
  }

  liveCounts(): CaptureLiveCounts {
    let bytes = 0;
    for (const rows of this.#requests.values()) bytes += rows.byteLength;
    return { requests: this.#requests.size, bytes };
  }

  #rowsOf(requestIndex: number): RowPages {
    let rows = this.#requests.get(requestIndex);
    if (rows === undefined) {
      rows = new RowPages(this.#shape, this.#rowsPerPage);
      this.#requests.set(requestIndex, rows);
    }
    return rows;
  }
}
