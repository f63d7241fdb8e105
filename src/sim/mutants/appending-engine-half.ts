/**
 * The obvious engine half for rows that come with outputs: it appends them to a list per request. It hits no cached
 * block. If it rewinds at a preemption it is right: then it is the control of the two mutants that are made of it.
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { ModelConfig } from '../../contract/config.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';
import type { PositionRange, RoutedRows } from '../../contract/routed-rows.ts';
import { routedRows } from '../../capture/routed-rows.ts';
import { rowShape, viewRows, type RowArray, type RowShape } from '../../capture/row-shape.ts';
import { SpanReader } from '../../capture/spans.ts';

type Held = { rows: RowArray[]; firstPosition: number; life: number };

export class AppendingEngineHalf implements CaptureEngineHalf {
  readonly design = 'deltas';
  readonly needsRows = true;
  readonly #shape: RowShape;
  readonly #rewinds: boolean;
  readonly #held = new Map<number, Held>();
  /** How often each request was preempted, and how often it had been when a step in flight was scheduled. */
  readonly #lives = new Map<number, number>();
  readonly #livesOfStep = new Map<number, Map<number, number>>();

  /** @param rewinds a preemption makes the next rows take the place of the earlier ones */
  constructor(model: ModelConfig, rewinds: boolean) {
    this.#shape = rowShape(model);
    this.#rewinds = rewinds;
  }

  wants(request: CaptureRequest): boolean {
    return request.returnRoutedExperts;
  }

  hasRows(): boolean {
    return false;
  }

  onStepOutput(output: ModelRunnerOutput, live: (requestIndex: number) => CaptureRequest | null): void {
    const lives = this.#livesOfStep.get(output.stepId);
    this.#livesOfStep.delete(output.stepId);
    const deltas = output.routedExpertDeltas;
    if (deltas === null) return;
    const { entriesPerRow } = this.#shape;
    const rows = viewRows(this.#shape, deltas.rows, deltas.numRows);
    for (const span = new SpanReader(deltas); span.next();) {
      if (live(span.requestIndex) === null) continue;
      const held = this.#of(span.requestIndex, span.position, lives?.get(span.requestIndex) ?? 0);
      for (let r = span.row; r < span.row + span.count; r += 1) {
        held.rows.push(rows.slice(r * entriesPerRow, (r + 1) * entriesPerRow));
      }
    }
  }

  take(request: CaptureRequest, _numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (finishReason === null) return null;
    const start = request.routedExpertsPromptStart;
    const end = request.numTokens - 1;
    const chunks = this.#held.get(request.index)?.rows.slice(0, end - start) ?? [];
    const missing: PositionRange[] = start + chunks.length < end ? [[start + chunks.length, end]] : [];
    return { ...routedRows(this.#shape, start, end, { chunks, missing }), rowsPerChunk: 1 };
  }

  onPreempt(request: CaptureRequest): void {
    this.#lives.set(request.index, (this.#lives.get(request.index) ?? 0) + 1);
  }

  onScheduled(step: SchedulerOutput, requests: readonly CaptureRequest[]): void {
    this.#livesOfStep.set(step.stepId, new Map(requests.map(({ index }) => [index, this.#lives.get(index) ?? 0])));
  }

  onStepsLost(): void {
    this.#livesOfStep.clear();
  }

  release(request: CaptureRequest): void {
    this.#held.delete(request.index);
    this.#lives.delete(request.index);
  }

  liveCounts(): CaptureLiveCounts {
    let numRows = 0;
    for (const { rows } of this.#held.values()) numRows += rows.length;
    return { requests: this.#held.size, bytes: numRows * this.#shape.bytesPerRow };
  }

  #of(index: number, position: number, life: number): Held {
    let held = this.#held.get(index);
    if (held === undefined) {
      held = { rows: [], firstPosition: position, life };
      this.#held.set(index, held);
    }
    // Rows scheduled before a preemption go on where the list ends; rows scheduled after it begin at the first
    // position.
    if (this.#rewinds && life > held.life) {
      held.rows.length = position - held.firstPosition;
      held.life = life;
    }
    return held;
  }
}
