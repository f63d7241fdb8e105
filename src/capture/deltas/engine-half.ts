/**
 * deltas, engine half.
 *
 * Source    RFC vllm#38079, the proposed design; prefix hits after vllm#45635 and LMDeploy.
 * Store     none but the requests' own rows: runs of neighbouring KV blocks, filled as outputs arrive, and kept with the blocks while they are cached.
 * Key       (request, position); a run stays under its KV blocks for later hits: the picture is in block-rows.ts.
 * Leaves    with the output of the step that computed them; joined (as a list, without a copy) when the request ends.
 * Gives up  nothing of L1–L9 under its default policy. See prefix-rows.ts for the others.
 * Costs     an opted-in request computes the tokens of a cached block again if no cached block of that hash has its rows, so
 *           opting in changes what is a hit; and rows take host memory as long as their block is cached. Rows that come
 *           with KV from elsewhere are copied when it arrives: as long as the prompt, but between two steps and not in one
 *           (L6).
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { EngineConfig, ModelConfig, PrefixRows } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';
import type { RowShape } from '../row-shape.ts';
import { pieces, presentRanges } from '../routed-rows.ts';
import { rowShape, viewRows } from '../row-shape.ts';
import { BlockRows } from './block-rows.ts';
import type { PrefixRowsPolicy } from './prefix-rows.ts';
import { DEFAULT_PREFIX_ROWS, prefixRowsPolicies } from './prefix-rows.ts';
import { RowAccumulator } from './row-accumulator.ts';
import type { RowRun } from './row-run.ts';
import { SPAN_LENGTH } from './span.ts';
import type { TableRows } from './table-rows.ts';

/** The tables for which a step in flight computes rows, by request index. */
type StepInFlight = { stepId: number; readonly tables: Map<number, TableRows> };

export class DeltasEngineHalf implements CaptureEngineHalf {
  readonly design = 'deltas';
  readonly #shape: RowShape;
  readonly #blockSize: number;
  readonly #policy: PrefixRowsPolicy;
  readonly #accumulators: Map<number, RowAccumulator> = new Map();
  readonly #blocks: BlockRows;
  readonly #inFlight: StepInFlight[] = [];
  readonly #spareSteps: StepInFlight[] = [];

  constructor(model: ModelConfig, engine: EngineConfig, prefixRows: PrefixRows = DEFAULT_PREFIX_ROWS) {
    this.#shape = rowShape(model);
    this.#blockSize = engine.blockSize;
    this.#blocks = new BlockRows(engine.blockSize);
    this.#policy = prefixRowsPolicies[prefixRows];
  }

  wants(request: CaptureRequest): boolean {
    return request.returnRoutedExperts;
  }

  get needsRows(): boolean {
    return this.#policy.recomputes;
  }

  /** Rows that stand, or that come with a step in flight. */
  hasRows(request: CaptureRequest, blockId: number, ordinal: number): boolean {
    if (ordinal < this.#firstWantedBlock(request)) return true;
    const run = this.#blocks.of(blockId);
    return run !== null && run.first <= Math.max(request.routedExpertsPromptStart, ordinal * this.#blockSize);
  }

  get followsBlocks(): boolean {
    return this.#policy.keeps;
  }

  onBlocksCached(request: CaptureRequest, firstBlock: number): void {
    const table = this.#table(request);
    const first = Math.max(firstBlock, this.#firstWantedBlock(request));
    table.reserve(first, request.numCachedBlocks);
    for (let i = first; i < request.numCachedBlocks; i++) this.#blocks.attach(request.blockIds[i]!, i, table.runs[i]!);
  }

  onPrefixHit(request: CaptureRequest, numHitBlocks: number): void {
    const table = this.#table(request);
    const firstWanted = this.#firstWantedBlock(request);
    for (let i = 0; i < numHitBlocks; i++) {
      table.hit(i, i < firstWanted ? null : this.#blocks.of(request.blockIds[i]!));
    }
  }

  acceptsExternalKv(_request: CaptureRequest, hasRows: boolean): boolean {
    return hasRows || !this.#policy.recomputes;
  }

  /**
   * Rows that come with KV stand like those that were computed here (L9); where none came, there is a gap (L4). Copies
   * the rows: O(to − from).
   */
  onExternalKv(request: CaptureRequest, from: number, to: number, rows: RoutedRows | null): void {
    const table = this.#table(request);
    let known = Math.max(from, request.routedExpertsPromptStart);
    for (const [start, end] of rows === null ? [] : presentRanges(rows, known, to)) {
      if (known < start) table.leaveOut(known, start);
      for (const { position, count, chunk, row } of pieces(rows!, start, end))
        table.write(position, count, chunk!, row);
      known = end;
    }
    if (known < to) table.leaveOut(known, to);
    if (!this.#policy.keeps) return;
    for (let i = Math.ceil(from / this.#blockSize); i < request.numCachedBlocks; i++) {
      const run = table.runs[i];
      if (run) this.#blocks.attach(request.blockIds[i]!, i, run);
    }
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[]): void {
    const record = this.#spareSteps.pop() ?? { stepId: 0, tables: new Map() };
    record.stepId = step.stepId;
    for (const request of requests) {
      const table = this.#table(request);
      table.isScheduled = true;
      record.tables.set(request.index, table);
    }
    this.#inFlight.push(record);
  }

  /**
   * Adds each span to the table for which it was computed. Work and memory are proportional to the rows of this step. A
   * request that is over, or that lost its blocks, is no exception: others may have hit them.
   */
  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    const step = this.#inFlight.shift();
    if (step?.stepId !== output.stepId) {
      throw RoutedExpertsError.of(
        'INVARIANT',
        `the output of step ${output.stepId} came in place of step ${step?.stepId}`,
      );
    }
    const deltas = output.routedExpertDeltas;
    if (deltas !== null) {
      const rows = viewRows(this.#shape, deltas.rows, deltas.numRows);
      let row = 0;
      for (let i = 0; i < deltas.indexLength; i += SPAN_LENGTH) {
        const requestIndex = deltas.index[i]!;
        const position = deltas.index[i + 1]!;
        const count = deltas.index[i + 2]!;
        const table = step.tables.get(requestIndex);
        if (table === undefined)
          throw RoutedExpertsError.of('INVARIANT', `rows of request ${requestIndex}, which wants none`);
        table.write(position, count, rows, row);
        // Not live but not released: a cache reset threw the output away, and with it what the request attended to
        // (L9).
        if (live(requestIndex) !== null) table.hasOutput = true;
        else if (this.#accumulators.has(requestIndex)) table.disown(position);
        row += count;
      }
    }
    this.#spare(step);
  }

  take(request: CaptureRequest, _numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (finishReason === null) return null;
    return this.#accumulator(request).take(request.routedExpertsPromptStart, request.numTokens - 1);
  }

  /** The blocks stay cached with their rows. */
  onPreempt(request: CaptureRequest): void {
    this.#accumulator(request).closeTable();
  }

  release(request: CaptureRequest): void {
    this.#accumulators.delete(request.index);
  }

  onBlockEvicted(blockId: number): void {
    this.#blocks.evict(blockId);
  }

  onCacheReset(): void {
    this.#blocks.clear();
  }

  onStepsLost(): void {
    for (const step of this.#inFlight.splice(0)) this.#spare(step);
  }

  /** Counts runs: O(live tokens / block size). */
  liveCounts(): CaptureLiveCounts {
    const runs: Set<RowRun> = new Set();
    for (const accumulator of this.#accumulators.values()) accumulator.collectRuns(runs);
    for (const { tables } of this.#inFlight) {
      for (const table of tables.values()) for (const run of table.runs) if (run) runs.add(run);
    }
    for (const run of this.#blocks.runs) runs.delete(run);
    let bytes = 0;
    for (const run of runs) bytes += run.byteLength;
    return { requests: this.#accumulators.size, bytes, cachedBytes: this.#blocks.byteLength };
  }

  close(): void {}

  #accumulator(request: CaptureRequest): RowAccumulator {
    let accumulator = this.#accumulators.get(request.index);
    if (accumulator === undefined) {
      accumulator = new RowAccumulator(this.#shape, this.#blockSize, request.routedExpertsPromptStart);
      this.#accumulators.set(request.index, accumulator);
    }
    return accumulator;
  }

  /** The first block of which the request wants a row. */
  #firstWantedBlock(request: CaptureRequest): number {
    return Math.floor(request.routedExpertsPromptStart / this.#blockSize);
  }

  #table(request: CaptureRequest): TableRows {
    return this.#accumulator(request).table(request.numTokens);
  }

  #spare(step: StepInFlight): void {
    step.tables.clear();
    this.#spareSteps.push(step);
  }
}
