/**
 * A scheduler's hands: makes the calls that the scheduler would make to an engine half of `deltas`, one by one. A row
 * has one entry, which says in which step it was computed and for which position.
 */

import { expect } from 'vitest';
import { designs } from '../../src/capture/designs.ts';
import { toArray } from '../../src/capture/routed-rows.ts';
import type { CaptureEngineHalf } from '../../src/contract/capture.ts';
import type { ModelConfig, PrefixRows } from '../../src/contract/config.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { CaptureRequest } from '../../src/contract/request.ts';
import { RequestKind, type SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { memorySharedRows } from './memory-shared-rows.ts';
import { BASE_ENGINE } from './scenarios.ts';

export const BLOCK_SIZE = 4;
/** One entry a row. */
export const model: ModelConfig = { ...modelPreset('tiny'), numLayers: 1, topK: 1 };

export type TestRequest = { -readonly [K in keyof CaptureRequest]: CaptureRequest[K] } & { isOver: boolean };

export class SchedulerCalls {
  readonly half: CaptureEngineHalf;
  #nextIndex = 0;
  #nextStep = 0;
  /** Those that have been scheduled since they were admitted. */
  readonly #running: Set<TestRequest> = new Set();

  constructor(policy: PrefixRows = 'complete') {
    const resources = { ...memorySharedRows(0), prefixRows: policy };
    this.half = designs.deltas.engineHalf(model, { ...BASE_ENGINE, blockSize: BLOCK_SIZE }, resources)!;
  }

  request(numTokens: number, routedExpertsPromptStart = 0): TestRequest {
    const index = this.#nextIndex++;
    const request = {
      index,
      requestId: `r${index}`,
      numPromptTokens: numTokens,
      numTokens,
      maxTokens: 100,
      numOutputTokens: 0,
      numComputedTokens: 0,
      blockIds: [],
      numCachedBlocks: 0,
      returnRoutedExperts: true,
      routedExpertsPromptStart,
      isOver: false,
    } as unknown as TestRequest;
    expect(this.half.wants(request)).toBe(true);
    return request;
  }

  /** How many of these cached blocks, from the front, the request may use. */
  usable(request: TestRequest, blockIds: readonly number[]): number {
    const without = blockIds.findIndex((id, i) => this.half.hasRows?.(request, id, i) === false);
    return without < 0 || this.half.needsRows !== true ? blockIds.length : without;
  }

  /** Admits the request to `blockIds`, of which the first `numHits` were hit. */
  admit(request: TestRequest, blockIds: readonly number[], numHits = 0): void {
    request.blockIds = blockIds;
    request.numComputedTokens = numHits * BLOCK_SIZE;
    request.numCachedBlocks = numHits;
    if (numHits > 0) this.half.onPrefixHit?.(request, numHits);
  }

  /** The blocks that the first `numTokens` tokens fill can be hit from here on. */
  cache(request: TestRequest, numTokens: number): void {
    const first = request.numCachedBlocks;
    request.numCachedBlocks = Math.floor(numTokens / BLOCK_SIZE);
    if (this.half.followsBlocks === true && request.numCachedBlocks > first) this.half.onBlocksCached!(request, first);
  }

  /** Schedules `count` more tokens of each, in one step. */
  schedule(...parts: readonly (readonly [TestRequest, number])[]): ModelRunnerOutput {
    const index: number[] = [];
    const rows: number[] = [];
    const stepId = this.#nextStep++;
    for (const [request, count] of parts) {
      const start = request.numComputedTokens;
      this.cache(request, Math.min(start + count, request.numTokens));
      const from = Math.max(start, request.routedExpertsPromptStart);
      if (from < start + count) index.push(request.index, from, start + count - from);
      for (let p = from; p < start + count; p++) rows.push(rowOf(stepId, p));
      request.numComputedTokens = start + count;
    }
    const requests = parts.map(([request]) => request);
    const kinds = requests.map((request) => (this.#running.has(request) ? RequestKind.running : RequestKind.new));
    for (const request of requests) this.#running.add(request);
    this.half.onScheduled?.(
      { stepId, kinds } as unknown as SchedulerOutput,
      requests,
      requests.map((_, i) => i),
    );
    const deltas = {
      rows: Uint8Array.from(rows),
      numRows: rows.length,
      index: Uint32Array.from(index),
      indexLength: index.length,
    };
    return { stepId, routedExpertDeltas: rows.length > 0 ? deltas : null } as ModelRunnerOutput;
  }

  /** The output arrives. A cache reset threw it away for the requests in `dropped`. */
  arrive(output: ModelRunnerOutput, all: readonly TestRequest[], dropped: readonly TestRequest[] = []): void {
    this.half.onStepOutput(output, (requestIndex) => {
      const request = all.find(({ index }) => index === requestIndex)!;
      return request.isOver || dropped.includes(request) ? null : request;
    });
    // The buffer is used again.
    output.routedExpertDeltas?.rows.fill(0xee);
  }

  preempt(request: TestRequest): void {
    this.half.onPreempt?.(request);
    this.#running.delete(request);
    request.blockIds = [];
    request.numCachedBlocks = 0;
    request.numComputedTokens = 0;
  }

  /** Ends the request. Returns its rows, missing ones as −1. */
  end(request: TestRequest): number[] {
    const rows = this.half.take(request, 0, 'abort')!;
    this.half.release(request);
    request.isOver = true;
    const all = Array.from(toArray(rows, 0));
    for (const [from, to] of rows.missing) all.fill(-1, from - rows.start, to - rows.start);
    return all;
  }

  expectNothingHeld(): void {
    const { requests, bytes } = this.half.liveCounts();
    expect({ requests, bytes }).toEqual({ requests: 0, bytes: 0 });
  }
}

export const rowOf = (stepId: number, position: number): number => 50 * (stepId + 1) + position;
/** Rows that a step computes for the positions `[from, to)`. */
export const rowsOf = (stepId: number, from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, i) => rowOf(stepId, from + i));
export const missing = (count: number): number[] => Array.from({ length: count }, () => -1);
