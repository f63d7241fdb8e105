/**
 * block-store, engine half.
 *
 * Source    vllm RFC #45221, #45635, #58150: vLLM's newest, 0.31 and 0.32.
 * Store     The worker has immutable blocks of rows, with reference counts and a generation. This half holds the rows
 *           of opted-in requests that have arrived, until the request ends.
 * Key       KV block hash. The engine sends each request's new hashes, and from where on it lacks rows (`emitStart`).
 * Leaves    Rows leave with the outputs of steps in which the request samples, and are handed out when it ends.
 * Gives up  L5: rows of every request are stored, since one that asks may hit its blocks.
 *           L6: the step that ends a prompt brings all of its rows.
 *           The rows of an aborted request.
 *
 * A block that becomes full while its last token is still unknown gets its hash when the token arrives. The next step
 * of the request tells the worker. Until then a hit on the block is declared a miss: there would be no rows.
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { RequestKind, type SchedulerOutput } from '../../contract/scheduler-output.ts';
import { PayloadRows } from '../payload-rows.ts';
import { routedRows } from '../routed-rows.ts';
import { RowPages } from '../row-pages.ts';
import type { RowShape } from '../row-shape.ts';
import { rowShape } from '../row-shape.ts';
import { SpanReader } from '../spans.ts';
import { NOT_WANTED, writeMetadata, type OutgoingEntry } from './messages.ts';
import { UnsentHashes } from './unsent-hashes.ts';

type Held = {
  readonly pages: RowPages;
  /** Rows before it have arrived. */
  arrivedEnd: number;
  /** Rows before it have arrived or are sure to come with steps in flight. */
  expectedEnd: number;
  /** Drafts of steps in flight, which the scheduler counts as computed. */
  readonly draftsInFlight: { readonly stepId: number; readonly count: number }[];
};

export class BlockStoreEngineHalf implements CaptureEngineHalf {
  readonly design = 'block-store';
  readonly needsRows = true;
  readonly followsBlocks = true;
  readonly #shape: RowShape;
  readonly #blockSize: number;
  readonly #payload: PayloadRows;
  /** Hashes of each request in the batch that the worker has. */
  readonly #numHashesSent: Map<number, number> = new Map();
  readonly #unsent: UnsentHashes = new UnsentHashes();
  /** Of requests that opted in and were scheduled. */
  readonly #held: Map<number, Held> = new Map();
  #generation = 0;

  constructor(model: ModelConfig, engine: EngineConfig) {
    this.#shape = rowShape(model);
    this.#blockSize = engine.blockSize;
    this.#payload = new PayloadRows(this.#shape);
  }

  /** A request that asks may hit blocks of one that does not. */
  wants(): boolean {
    return true;
  }

  hasRows(request: CaptureRequest, _blockId: number, ordinal: number): boolean {
    return !this.#unsent.has(request, ordinal);
  }

  /**
   * Blocks that the step being scheduled fills are announced with it; those that were full before wait for the
   * request's next step.
   */
  onBlocksCached(request: CaptureRequest, firstBlock: number): void {
    const numComputedBlocks = Math.floor(request.numComputedTokens / this.#blockSize);
    this.#unsent.add(request, firstBlock, Math.min(request.numCachedBlocks, numComputedBlocks));
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void {
    const entries: OutgoingEntry[] = [];
    let hashWords = 0;
    for (const [i, request] of requests.entries()) {
      const at = stepPositions[i]!;
      const joins = step.kinds[at] !== RequestKind.running;
      const firstOrdinal = joins ? 0 : (this.#numHashesSent.get(request.index) ?? 0);
      const words = request.blockHashWords;
      const hashes = request.blockHashes.subarray(firstOrdinal * words, request.numHashedBlocks * words);
      hashWords = Math.max(hashWords, words);
      this.#numHashesSent.set(request.index, request.numHashedBlocks);
      this.#unsent.onSent(request, firstOrdinal);
      const emitStart = request.returnRoutedExperts ? this.#emitStart(step, at, request) : NOT_WANTED;
      if (emitStart === NOT_WANTED && hashes.length === 0) continue;
      entries.push({ requestIndex: request.index, emitStart, firstOrdinal, hashes });
    }
    step.captureMetadata = writeMetadata(this.#generation, hashWords, entries);
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    const deltas = output.routedExpertDeltas;
    if (deltas === null) return;
    this.#payload.load(deltas);
    for (const span = new SpanReader(deltas); span.next();) {
      const held = this.#held.get(span.requestIndex);
      if (held === undefined || live(span.requestIndex) === null) continue;
      held.pages.write(span.position, span.count, this.#payload.rows(span.row, span.count));
      held.arrivedEnd = Math.max(held.arrivedEnd, span.position + span.count);
    }
    for (const held of this.#held.values()) {
      while (held.draftsInFlight.length > 0 && held.draftsInFlight[0]!.stepId <= output.stepId) {
        held.draftsInFlight.shift();
      }
    }
  }

  take(request: CaptureRequest, _numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (finishReason === null || !request.returnRoutedExperts) return null;
    const start = request.routedExpertsPromptStart;
    const end = request.numTokens - 1;
    const held = finishReason === 'abort' ? undefined : this.#held.get(request.index);
    return held?.pages.take(start, end) ?? routedRows(this.#shape, start, end);
  }

  /**
   * Outputs in flight may be thrown away: rows that have not arrived are asked for again. The worker forgets the
   * request's hashes.
   */
  onPreempt(request: CaptureRequest): void {
    this.#leaveBatch(request);
    const held = this.#held.get(request.index);
    if (held === undefined) return;
    held.expectedEnd = held.arrivedEnd;
    held.draftsInFlight.length = 0;
  }

  release(request: CaptureRequest): void {
    this.#leaveBatch(request);
    this.#held.delete(request.index);
  }

  onBlockEvicted(blockId: number): void {
    this.#unsent.onEvicted(blockId);
  }

  onCacheReset(): void {
    this.#generation++;
    this.#unsent.clear();
  }

  liveCounts(): CaptureLiveCounts {
    let bytes = 0;
    for (const { pages } of this.#held.values()) bytes += pages.byteLength;
    return { requests: Math.max(this.#numHashesSent.size, this.#held.size), bytes };
  }

  #leaveBatch(request: CaptureRequest): void {
    const numSent = this.#numHashesSent.get(request.index);
    if (numSent === undefined) return;
    this.#unsent.add(request, numSent, request.numCachedBlocks);
    this.#numHashesSent.delete(request.index);
  }

  /** From where on the step's output shall bring rows, if it samples. */
  #emitStart(step: SchedulerOutput, at: number, request: CaptureRequest): number {
    let held = this.#held.get(request.index);
    if (held === undefined) {
      const start = request.routedExpertsPromptStart;
      const pages = new RowPages(this.#shape, this.#blockSize);
      held = { pages, arrivedEnd: start, expectedEnd: start, draftsInFlight: [] };
      this.#held.set(request.index, held);
    }
    const emitStart = Math.max(held.expectedEnd, held.arrivedEnd);
    const numDrafts = step.draftOffsets[at + 1]! - step.draftOffsets[at]!;
    const certainEnd = request.numComputedTokens - numDrafts;
    // Short of the last known token the step samples nothing, and so brings no rows.
    if (certainEnd >= request.numTokens) {
      const optimistic = held.draftsInFlight.reduce((sum, { count }) => sum + count, 0);
      held.expectedEnd = Math.max(emitStart, certainEnd - optimistic);
    }
    if (numDrafts > 0) held.draftsInFlight.push({ stepId: step.stepId, count: numDrafts });
    return emitStart;
  }
}
