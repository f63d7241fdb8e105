/**
 * The smallest engine half that keeps rows, for tests: rows overlaid by position, one byte each. It also holds the
 * scheduler to the order of calls that `CaptureEngineHalf` promises, and writes them down.
 */

import { routedRows } from '../../src/capture/routed-rows.ts';
import type { CaptureEngineHalf, CaptureLiveCounts } from '../../src/contract/capture.ts';
import type { FinishReason } from '../../src/contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { CaptureRequest } from '../../src/contract/request.ts';
import type { PositionRange, RoutedRows } from '../../src/contract/routed-rows.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';

const FORM = { numLayers: 1, topK: 1, dtype: 'uint8' } as const;

type State = { request: CaptureRequest; rows: (number | undefined)[]; tookLast: boolean };

const must = (condition: boolean, what: string): void => {
  if (!condition) throw new Error(`capture hooks: ${what}`);
};

export class RowKeeper implements CaptureEngineHalf {
  readonly design = 'deltas';
  readonly calls: string[] = [];
  readonly #states = new Map<number, State>();
  readonly #asked = new Set<number>();
  /** Cached blocks of wanted requests. */
  readonly followed: Set<number> = new Set();
  needsRows: boolean = true;
  readonly followsBlocks = true;
  /** Whether it says of a cached block that it has rows. */
  keeps: (blockId: number, ordinal: number) => boolean = () => true;

  wants(request: CaptureRequest): boolean {
    must(!this.#asked.has(request.index), `wants(${request.index}) asked twice`);
    this.#asked.add(request.index);
    if (request.returnRoutedExperts) this.#states.set(request.index, { request, rows: [], tookLast: false });
    this.calls.push(`wants ${request.requestId}`);
    return request.returnRoutedExperts;
  }

  hasRows(request: CaptureRequest, blockId: number, ordinal: number): boolean {
    this.#of(request);
    must(request.blockIds.length === 0, `hasRows(${request.index}) of a request that holds blocks`);
    this.calls.push(`hasRows ${request.requestId} ${ordinal}`);
    return this.keeps(blockId, ordinal);
  }

  onBlocksCached(request: CaptureRequest, firstBlock: number): void {
    this.#of(request);
    must(firstBlock < request.numCachedBlocks, `onBlocksCached(${request.index}) of no block`);
    for (const id of request.blockIds.slice(firstBlock, request.numCachedBlocks)) {
      must(!this.followed.has(id), `block ${id} was cached twice`);
      this.followed.add(id);
    }
  }

  onPrefixHit(request: CaptureRequest, numHitBlocks: number): void {
    this.#of(request);
    must(request.blockIds.length >= numHitBlocks, `onPrefixHit(${request.index}) before its blocks are there`);
    this.calls.push(`onPrefixHit ${request.requestId} ${numHitBlocks}`);
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[], stepPositions: readonly number[]): void {
    must(requests.length > 0 && requests.length === stepPositions.length, 'onScheduled for nobody');
    for (const [i, request] of requests.entries()) {
      this.#of(request);
      const at = stepPositions[i]!;
      must(
        step.requestIndices[at] === request.index,
        `place ${at} of step ${step.stepId} is not request ${request.index}`,
      );
      must(
        request.numComputedTokens === step.numComputedTokens[at]! + step.numScheduledTokens[at]!,
        `onScheduled(${request.index}) before its tokens are counted`,
      );
    }
    this.calls.push(`onScheduled ${step.stepId} ${requests.map(({ requestId }) => requestId).join(' ')}`);
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    this.calls.push(`onStepOutput ${output.stepId}`);
    const deltas = output.routedExpertDeltas;
    if (deltas === null) return;
    let row = 0;
    for (let i = 0; i < deltas.indexLength; i += 3) {
      const index = deltas.index[i]!;
      const start = deltas.index[i + 1]!;
      const count = deltas.index[i + 2]!;
      const request = live(index);
      if (request !== null) {
        const state = this.#of(request);
        for (let p = 0; p < count; p += 1) state.rows[start + p] = deltas.rows[row + p];
      }
      row += count;
    }
  }

  take(request: CaptureRequest, numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    const state = this.#of(request);
    must(!state.tookLast, `take(${request.index}) after its last`);
    this.calls.push(`take ${request.requestId} ${numNewTokens} ${finishReason}`);
    if (finishReason === null) return null;
    state.tookLast = true;
    const start = request.routedExpertsPromptStart;
    const end = Math.max(start, request.numTokens - 1);
    const missing: PositionRange[] = [];
    for (let p = start; p < end; p += 1) {
      if (state.rows[p] !== undefined) continue;
      const last = missing.at(-1);
      if (last !== undefined && last[1] === p) missing[missing.length - 1] = [last[0], p + 1];
      else missing.push([p, p + 1]);
    }
    const chunk = Uint8Array.from({ length: end }, (_, p) => state.rows[p] ?? 0);
    return routedRows(FORM, start, end, { rowsPerChunk: 1 << 20, chunks: [chunk], missing });
  }

  onPreempt(request: CaptureRequest): void {
    this.#of(request);
    must(request.blockIds.length > 0, `onPreempt(${request.index}) after its blocks were freed`);
    this.calls.push(`onPreempt ${request.requestId} ${request.blockIds.length}`);
  }

  release(request: CaptureRequest): void {
    must(this.#of(request).tookLast, `release(${request.index}) before its last take`);
    this.#states.delete(request.index);
    this.calls.push(`release ${request.requestId} ${request.blockIds.length}`);
  }

  onBlockEvicted(blockId: number): void {
    must(this.followed.delete(blockId), `onBlockEvicted(${blockId}) of a block that is not followed`);
    this.calls.push(`onBlockEvicted ${blockId}`);
  }

  onCacheReset(): void {
    this.followed.clear();
    this.calls.push('onCacheReset');
  }

  onStepsLost(): void {
    this.calls.push('onStepsLost');
  }

  liveCounts(): CaptureLiveCounts {
    let bytes = 0;
    for (const { rows } of this.#states.values()) bytes += rows.length;
    return { requests: this.#states.size, bytes };
  }

  close(): void {
    this.calls.push('close');
  }

  #of(request: CaptureRequest): State {
    const state = this.#states.get(request.index);
    if (state === undefined || state.request !== request) {
      throw new Error(`capture hooks: request ${request.index} was mentioned, which is not wanted or was released`);
    }
    return state;
  }
}
