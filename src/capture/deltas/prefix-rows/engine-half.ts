/**
 * deltas, engine half with rows of prefix hits: policies `complete`, `share` and `recompute`. It stands beside the half
 * of the RFC (../engine-half.ts), takes in the same payload from the same worker half, and keeps the rows differently.
 *
 * Source    RFC vllm#38079 for how rows leave; vllm#45635 and LMDeploy for prefix hits.
 * Store     Runs: the rows of neighbouring KV blocks. Outputs fill them. Cached blocks keep them.
 * Key       (request, position). For later hits a run stays under its KV blocks: block-rows.ts has the picture.
 * Leaves    Rows come with the output of the step that computed them. When the request ends they are joined to a list,
 *           without a copy.
 * Gives up  Nothing of L1–L9 under `complete`. ../prefix-rows.ts says what the other policies report missing.
 * Costs     Opting in changes what is a hit: where no cached block of a hash has its rows, the request computes the
 *           tokens again. Rows take host memory as long as their block is cached. Rows that come with KV from elsewhere
 *           are copied when they arrive: as many as the prompt has, but between two steps and not inside one (L6).
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../../contract/capture.ts';
import type { EngineConfig, ModelConfig } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { FinishReason } from '../../../contract/engine-core-output.ts';
import type { EvictedRows } from '../../../contract/kv-connector.ts';
import type { ModelRunnerOutput } from '../../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../../contract/request.ts';
import type { RoutedRows } from '../../../contract/routed-rows.ts';
import { RequestKind, type SchedulerOutput } from '../../../contract/scheduler-output.ts';
import { PayloadRows } from '../../payload-rows.ts';
import { presentPieces } from '../../routed-rows.ts';
import type { RowShape } from '../../row-shape.ts';
import { rowShape } from '../../row-shape.ts';
import { SpanReader } from '../../spans.ts';
import type { PrefixRowsPolicy } from '../prefix-rows.ts';
import { BlockRows } from './block-rows.ts';
import { RowAccumulator } from './row-accumulator.ts';
import type { TableRows } from './table-rows.ts';

/** What a request that is over leaves behind: steps up to this one may compute rows for blocks that others have hit. */
type EndedRequest = Readonly<{ accumulator: RowAccumulator; lastStepId: number }>;

export class PrefixRowsEngineHalf implements CaptureEngineHalf {
  readonly design = 'deltas';
  readonly #shape: RowShape;
  readonly #blockSize: number;
  readonly #policy: PrefixRowsPolicy;
  readonly #payload: PayloadRows;
  readonly #accumulators: Map<number, RowAccumulator> = new Map();
  readonly #blocks: BlockRows;
  /** How often memory was counted. */
  #numCounts = 0;
  /** Steps whose output has not come, oldest first. */
  readonly #inFlight: number[] = [];
  /** In the order in which they ended. */
  readonly #ended: Map<number, EndedRequest> = new Map();

  constructor(model: ModelConfig, engine: EngineConfig, policy: PrefixRowsPolicy) {
    this.#shape = rowShape(model);
    this.#blockSize = engine.blockSize;
    this.#blocks = new BlockRows(engine.blockSize);
    this.#policy = policy;
    this.#payload = new PayloadRows(this.#shape);
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
   * Rows that come with KV stand like those that were computed here (L9). Where none came, there is a gap (L4). Copies
   * the rows: O(to − from).
   */
  onExternalKv(request: CaptureRequest, from: number, to: number, rows: RoutedRows | null): void {
    const table = this.#table(request);
    let known = Math.max(from, request.routedExpertsPromptStart);
    for (const piece of rows === null ? [] : presentPieces(rows, known, to)) {
      if (known < piece.position) table.leaveOut(known, piece.position);
      table.write(piece.position, piece.count, piece.rows);
      known = piece.position + piece.count;
    }
    if (known < to) table.leaveOut(known, to);
    if (!this.#policy.keeps) return;
    for (let i = Math.ceil(from / this.#blockSize); i < request.numCachedBlocks; i++) {
      const run = table.runs[i];
      if (run) this.#blocks.attach(request.blockIds[i]!, i, run);
    }
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void {
    const { stepId, kinds } = step;
    for (let i = 0; i < requests.length; i++) {
      // A running request goes on with the table of its admission.
      if (kinds[stepPositions[i]!] !== RequestKind.running) this.#table(requests[i]!).firstStepId = stepId;
    }
    this.#inFlight.push(stepId);
  }

  /**
   * Adds each span to the table for which it was computed: O(rows of the step). This includes spans of a request that
   * has ended or lost its blocks, because other requests may have hit these blocks.
   */
  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    const { stepId, routedExpertDeltas: deltas } = output;
    const expected = this.#inFlight.shift();
    if (stepId !== expected) {
      const what = `the output of step ${stepId} came in place of step ${expected}`;
      throw RoutedExpertsError.of('INVARIANT', what);
    }
    if (deltas !== null) {
      this.#payload.load(deltas);
      for (const span = new SpanReader(deltas); span.next();) {
        const { requestIndex, position, count } = span;
        const accumulator = this.#accumulators.get(requestIndex);
        const table = (accumulator ?? this.#ended.get(requestIndex)?.accumulator)?.tableOf(stepId);
        if (table === undefined) {
          throw RoutedExpertsError.of('INVARIANT', `rows of request ${requestIndex}, which wants none`);
        }
        table.write(position, count, this.#payload.rows(span.row, count));
        // Not live but not released: a cache reset threw the output away, and with it what the request attended to
        // (L9).
        if (live(requestIndex) !== null) table.hasOutput = true;
        else if (accumulator !== undefined) table.disown(position);
      }
      if (deltas.missing !== undefined) this.#leaveOut(deltas.missing, stepId);
    }
    for (const [requestIndex, { lastStepId }] of this.#ended) {
      if (lastStepId > stepId) break;
      this.#ended.delete(requestIndex);
    }
  }

  /** Rows that a stage did not deliver will never come. */
  #leaveOut(spans: Uint32Array, stepId: number): void {
    for (const span = new SpanReader({ index: spans, indexLength: spans.length }); span.next();) {
      const { requestIndex, position, count } = span;
      const held = this.#accumulators.get(requestIndex) ?? this.#ended.get(requestIndex)?.accumulator;
      held?.tableOf(stepId).leaveOut(position, position + count);
    }
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
    const accumulator = this.#accumulators.get(request.index);
    const lastStepId = this.#inFlight.at(-1);
    if (accumulator !== undefined && lastStepId !== undefined) {
      this.#ended.set(request.index, { accumulator, lastStepId });
    }
    this.#accumulators.delete(request.index);
  }

  /** What stands, or comes with steps in flight: a run outlives its blocks for as long as these write to it. */
  evictedRows(blockId: number): EvictedRows | null {
    const place = this.#blocks.placeOf(blockId);
    if (place === null) return null;
    const { run, from } = place;
    const to = from + this.#blockSize;
    if (run.first >= to) return null;
    return { from: Math.max(from, run.first), read: () => (run.end < to ? null : run.rows(from, to)) };
  }

  onBlockEvicted(blockId: number): void {
    this.#blocks.evict(blockId);
  }

  onCacheReset(): void {
    this.#blocks.clear();
  }

  onStepsLost(): void {
    this.#inFlight.length = 0;
    this.#ended.clear();
  }

  /** Counts runs: O(live tokens / block size). */
  liveCounts(): CaptureLiveCounts {
    const count = ++this.#numCounts;
    let cachedBytes = 0;
    for (const run of this.#blocks.runs) cachedBytes += run.bytesOnce(count);
    let bytes = 0;
    for (const accumulator of this.#accumulators.values()) bytes += accumulator.bytesOnce(count);
    for (const { accumulator } of this.#ended.values()) bytes += accumulator.bytesOnce(count);
    return { requests: this.#accumulators.size, bytes, cachedBytes };
  }

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
}
