/**
 * slot-store, engine half.
 *
 * Source    vllm#39568 with #38939, #44214, #48622, #51906: released since 0.22.
 * Store     A table in the scheduler's memory, `[numBlocks · blockSize, L, K]`: `uint8` for up to 256 experts, else
 *           `uint16`.
 * Key       Physical KV slot.
 * Leaves    Rows leave with each output of a request, and the frontend joins them. The first output reads its rows from
 *           the table, through the block table as it was when the step was scheduled: this covers prefix hits and
 *           earlier chunks. Later outputs slice the step's own rows. Chunks before the last emit nothing. After a
 *           preemption only the row of the new token is emitted.
 * Gives up  L5: every step stores the rows of all requests, since one that asks may hit any of them.
 *           L6: the first output copies the prompt's rows in the scheduler's step.
 *           The prompt's rows of a request that is aborted before its first token.
 * Costs     Memory for the rows of every slot of the pool, whether or not a request asks (gpt-oss-120b: 144 B a slot).
 *           A copy of each row of every step. A block table per request and step in flight.
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';
import { routedRows } from '../routed-rows.ts';
import type { RowArray, RowShape } from '../row-shape.ts';
import { rowShape, viewRows } from '../row-shape.ts';
import { SpanReader } from '../spans.ts';
import { SlotTable } from './slot-table.ts';
import { partsOf } from './slotted-deltas.ts';

/** A request's block table as it was when a step was scheduled. */
type Snapshot = Readonly<{ stepId: number; blockIds: Uint32Array }>;

/** What was emitted of a request. A preemption changes none of it: outputs in flight are still delivered. */
type Emission = {
  /** Rows before this position were emitted; −1 before the first emission. */
  cursor: number;
  /** Of the steps in flight that may bring the first token. */
  snapshots: Snapshot[];
  /**
   * The request's part of the output of step `stepId`: `numRows` rows of the step from row `row` on, for the positions
   * from `tokenStart` on.
   */
  stepId: number;
  row: number;
  tokenStart: number;
  numRows: number;
};

export class SlotStoreEngineHalf implements CaptureEngineHalf {
  readonly design = 'slot-store';
  /** The source refuses a tier; without that it would read what the slots held before. */
  readonly takesTierKv = true;
  readonly #shape: RowShape;
  readonly #blockSize: number;
  readonly #table: SlotTable;
  /** Of requests that opted in and were scheduled. */
  readonly #emissions: Map<number, Emission> = new Map();
  /** The step whose output is being taken in, and its rows; valid until its last `take`. */
  #stepId = -1;
  #stepRows: RowArray;

  constructor(model: ModelConfig, engine: EngineConfig) {
    this.#shape = rowShape(model);
    this.#blockSize = engine.blockSize;
    this.#table = new SlotTable(this.#shape, engine);
    this.#stepRows = viewRows(this.#shape, new Uint8Array(0), 0);
  }

  /** The source has no opt-in per request: rows of all are stored, those of the requests that asked are handed out. */
  wants(): boolean {
    return true;
  }

  /** Remembers the block table where the step can bring a request's first token. O(blocks of such a request). */
  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[]): void {
    for (const request of requests) {
      if (!request.returnRoutedExperts) continue;
      let emission = this.#emissions.get(request.index);
      if (emission === undefined) {
        emission = { cursor: -1, snapshots: [], stepId: -1, row: 0, tokenStart: 0, numRows: 0 };
        this.#emissions.set(request.index, emission);
      }
      if (emission.cursor >= 0 || request.numComputedTokens < request.numPromptTokens) continue;
      // Snapshots of outputs that a cache reset dropped, or that were lost with a worker, are never read.
      emission.snapshots = emission.snapshots.filter(({ stepId }) => stepId > this.#stepId);
      emission.snapshots.push({ stepId: step.stepId, blockIds: Uint32Array.from(request.blockIds) });
    }
  }

  /**
   * Stores the whole step before anything is read, also for requests that are skipped; then notes where each one's rows
   * lie.
   */
  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    this.#stepId = output.stepId;
    const deltas = output.routedExpertDeltas;
    if (deltas === null) return;
    const rows = viewRows(this.#shape, deltas.rows, deltas.numRows);
    const { spans, slots } = partsOf(deltas);
    this.#stepRows = rows;
    this.#table.storeBatch(rows, slots);
    for (const span = new SpanReader(spans); span.next();) {
      const emission = this.#emissions.get(span.requestIndex);
      if (emission === undefined || live(span.requestIndex) === null) continue;
      emission.stepId = output.stepId;
      emission.row = span.row;
      emission.tokenStart = span.position;
      emission.numRows = span.count;
    }
  }

  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (!request.returnRoutedExperts) return null;
    const emission = this.#emissions.get(request.index);
    const start = request.routedExpertsPromptStart;
    const end = request.numTokens - 1;
    const cursor = emission?.cursor ?? -1;
    if (finishReason === 'abort') return cursor < 0 ? routedRows(this.#shape, start, end) : null;
    if (emission === undefined || numNewTokens === 0) return null;
    emission.cursor = end;
    return cursor < 0 ? this.#first(emission, start, end) : this.#slice(emission, cursor, end);
  }

  release(request: CaptureRequest): void {
    this.#emissions.delete(request.index);
  }

  liveCounts(): CaptureLiveCounts {
    let bytes = 0;
    for (const { snapshots } of this.#emissions.values()) {
      for (const { blockIds } of snapshots) bytes += blockIds.byteLength;
    }
    return { requests: this.#emissions.size, bytes };
  }

  /** The prompt's rows, and those of drafts accepted with it, read by slot. */
  #first(emission: Emission, start: number, end: number): RoutedRows {
    const snapshot = emission.snapshots.find(({ stepId }) => stepId === this.#stepId);
    emission.snapshots = [];
    if (snapshot === undefined) return routedRows(this.#shape, start, end);
    const chunks = this.#table.pages(snapshot.blockIds, start, end);
    return routedRows(this.#shape, start, end, { rowsPerChunk: this.#blockSize, chunks });
  }

  /** The rows of the new tokens, out of the step's. */
  #slice({ stepId, row, tokenStart, numRows }: Emission, start: number, end: number): RoutedRows {
    const isThere = stepId === this.#stepId && start >= tokenStart && end <= tokenStart + numRows;
    if (!isThere) return routedRows(this.#shape, start, end);
    const width = this.#shape.entriesPerRow;
    const from = row + start - tokenStart;
    const chunk = this.#stepRows.slice(from * width, (from + end - start) * width);
    return routedRows(this.#shape, start, end, { chunks: [chunk] });
  }
}
