/**
 * slot-store, engine half.
 *
 * Source    vllm#39568 with #38939, #44214, #48622, #51906: released since 0.22.
 * Store     a table in the scheduler's memory, `[numBlocks · blockSize, L, K]`, `uint8` for up to 256 experts, else `uint16`.
 * Key       physical KV slot.
 * Leaves    with each output of a request, joined by the frontend. The first output reads its rows from the table through the block
 *           table as it was when the step was scheduled, which covers prefix hits and earlier chunks; later outputs slice the step's
 *           own rows. Chunks before the last emit nothing; after a preemption only the row of the new token is emitted.
 * Gives up  L5 (every step stores the rows of all requests: any of them may be hit by one that asks), L6 (the first output copies
 *           the prompt's rows in the scheduler's step), and the prompt's rows of a request aborted before its first token.
 * Costs     rows of every slot of the pool, whoever asks (gpt-oss-120b: 144 B a slot), a copy of each row of every step, and a block table
 *           per request and step in flight.
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { PositionRange, RoutedRows } from '../../contract/routed-rows.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';
import type { RowArray, RowShape } from '../row-shape.ts';
import { rowShape, viewRows } from '../row-shape.ts';
import { SlotTable } from './slot-table.ts';
import { SPAN_LENGTH, SPANS_AT, slotsAt } from './step-index.ts';

/** A request's block table as it was when a step was scheduled. */
type Snapshot = Readonly<{ stepId: number; blockIds: Uint32Array }>;

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
      // Snapshots of outputs that were dropped by a cache reset, or lost with a worker, are of no use to anybody.
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
    const { index } = deltas;
    const rows = viewRows(this.#shape, deltas.rows, deltas.numRows);
    const firstSlot = slotsAt(index[0]!);
    this.#stepRows = rows;
    this.#table.storeBatch(rows, index.subarray(firstSlot, firstSlot + deltas.numRows));
    let row = 0;
    for (let at = SPANS_AT; at < firstSlot; at += SPAN_LENGTH) {
      const numRows = index[at + 2]!;
      const emission = this.#emissions.get(index[at]!);
      if (emission !== undefined && live(index[at]!) !== null) {
        emission.stepId = output.stepId;
        emission.row = row;
        emission.tokenStart = index[at + 1]!;
        emission.numRows = numRows;
      }
      row += numRows;
    }
  }

  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (!request.returnRoutedExperts) return null;
    const emission = this.#emissions.get(request.index);
    const end = Math.max(request.routedExpertsPromptStart, request.numTokens - 1);
    const cursor = emission?.cursor ?? -1;
    if (finishReason === 'abort') return cursor < 0 ? this.#nothing(request.routedExpertsPromptStart, end) : null;
    if (emission === undefined || numNewTokens === 0) return null;
    emission.cursor = end;
    return cursor < 0 ? this.#first(request, emission, end) : this.#slice(emission, cursor, end);
  }

  /** What was emitted stays emitted. Snapshots stay too: outputs in flight are still delivered. */
  onPreempt(): void {}

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

  onPrefixHit(): void {}
  onCacheReset(): void {}
  close(): void {}

  /** The prompt's rows, and those of drafts accepted with it, read by slot. */
  #first(request: CaptureRequest, emission: Emission, end: number): RoutedRows {
    const start = request.routedExpertsPromptStart;
    const snapshot = emission.snapshots.find(({ stepId }) => stepId === this.#stepId);
    emission.snapshots = [];
    if (snapshot === undefined) return this.#nothing(start, end);
    return {
      ...this.#header(start, end),
      rowsPerChunk: this.#blockSize,
      chunks: this.#table.pages(snapshot.blockIds, start, end),
      missing: [],
    };
  }

  /** The rows of the new tokens, out of the step's. */
  #slice(emission: Emission, start: number, end: number): RoutedRows {
    const width = this.#shape.entriesPerRow;
    const from = emission.row + start - emission.tokenStart;
    const isThere =
      emission.stepId === this.#stepId && start >= emission.tokenStart && end <= emission.tokenStart + emission.numRows;
    if (!isThere) return this.#nothing(start, end);
    return {
      ...this.#header(start, end),
      rowsPerChunk: Math.max(1, end - start),
      chunkOrigin: start,
      chunks: [this.#stepRows.slice(from * width, (from + end - start) * width)],
      missing: [],
    };
  }

  #nothing(start: number, end: number): RoutedRows {
    const missing: PositionRange[] = end > start ? [[start, end]] : [];
    return { ...this.#header(start, end), rowsPerChunk: this.#blockSize, chunks: [], missing };
  }

  #header(start: number, end: number): Pick<RoutedRows, 'start' | 'count' | 'numLayers' | 'topK' | 'dtype'> {
    const { numLayers, topK, dtype } = this.#shape;
    return { start, count: end - start, numLayers, topK, dtype };
  }
}
