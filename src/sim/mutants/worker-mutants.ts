/** Worker halves, kernels and outputs that are wrong in one way. */

import type { CaptureWorkerContext, WorkerStep } from '../../contract/capture.ts';
import type { ModelConfig } from '../../contract/config.ts';
import type { ModelRunnerOutput, RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';
import { acceptedTokens } from '../../capture/captured-spans.ts';
import { SPAN_LENGTH } from '../../capture/spans.ts';
import { rowShape } from '../../capture/row-shape.ts';
import type { KernelSet } from '../../kernels/model/kernel-set.ts';
import { Header, REQUEST_WORDS, RequestField } from '../../kernels/model/step-input.ts';
import { DelegatingWorkerHalf } from './delegates.ts';

/** Steps are padded to a multiple of this, as captured graphs are. */
const PADDED_TO = 8;

/** Takes the padding behind the last request's rows for its rows. */
export class CountsPadding extends DelegatingWorkerHalf {
  override collect(step: WorkerStep, bytes: Uint8Array | null, counts: Uint32Array): RoutedExpertDeltas | null {
    const deltas = super.collect(step, bytes, counts);
    const padding = (PADDED_TO - (step.numTokens % PADDED_TO)) % PADDED_TO;
    if (deltas === null || deltas.indexLength === 0 || padding === 0) return deltas;
    const index = deltas.index.slice();
    index[deltas.indexLength - 1]! += padding;
    return { ...deltas, index, numRows: deltas.numRows + padding };
  }
}

/** Sends the rows of rejected drafts with those of accepted ones. */
export class KeepsRejected extends DelegatingWorkerHalf {
  override collect(step: WorkerStep, bytes: Uint8Array | null, counts: Uint32Array): RoutedExpertDeltas | null {
    return super.collect(
      step,
      bytes,
      counts.map((count, i) => (count === 0 ? 0 : 1 + step.draftCounts[i]!)),
    );
  }
}

/** Narrows ids to a byte, however many experts there are. */
export class WrapsIds extends DelegatingWorkerHalf {
  readonly #isWide: boolean;

  constructor(half: DelegatingWorkerHalf['half'], { numExperts }: ModelConfig) {
    super(half);
    this.#isWide = numExperts > 256;
  }

  override collect(step: WorkerStep, bytes: Uint8Array | null, counts: Uint32Array): RoutedExpertDeltas | null {
    const deltas = super.collect(step, bytes, counts);
    if (deltas === null || !this.#isWide) return deltas;
    // Little-endian u16: the high byte of every id.
    for (let i = 1; i < deltas.rows.length; i += 2) deltas.rows[i] = 0;
    return deltas;
  }
}

type Withheld = Readonly<{ position: number; rows: Uint8Array }>;

/** Emits rows when it predicts that a request ends by length: EOS and stop tokens are unknown to it. */
export class PredictsFinish extends DelegatingWorkerHalf {
  readonly #maxModelLen: number;
  readonly #bytesPerRow: number;
  readonly #withheld: Map<number, Withheld[]> = new Map();

  constructor(half: DelegatingWorkerHalf['half'], { engine, model }: CaptureWorkerContext) {
    super(half);
    this.#maxModelLen = engine.maxModelLen;
    this.#bytesPerRow = rowShape(model).bytesPerRow;
  }

  override collect(step: WorkerStep, bytes: Uint8Array | null, counts: Uint32Array): RoutedExpertDeltas | null {
    const deltas = super.collect(step, bytes, counts);
    if (deltas !== null) this.#withhold(deltas);
    const index: number[] = [];
    const pieces: Uint8Array[] = [];
    for (let i = 0; i < step.numRequests; i += 1) {
      if (counts[i] === 0 || !this.#isAtLimit(step, i, counts[i]!)) continue;
      for (const { position, rows } of this.#withheld.get(step.requestIndices[i]!) ?? []) {
        index.push(step.requestIndices[i]!, position, rows.length / this.#bytesPerRow);
        pieces.push(rows);
      }
      this.#withheld.delete(step.requestIndices[i]!);
    }
    if (pieces.length === 0) return null;
    const rows = Uint8Array.from(pieces.flatMap((piece) => [...piece]));
    const numRows = rows.length / this.#bytesPerRow;
    return { rows, numRows, index: Uint32Array.from(index), indexLength: index.length };
  }

  override forget(endedIndices: readonly number[], preemptedIndices: readonly number[]): void {
    super.forget(endedIndices, preemptedIndices);
    for (const requestIndex of endedIndices) this.#withheld.delete(requestIndex);
  }

  #withhold({ rows, index, indexLength }: RoutedExpertDeltas): void {
    let at = 0;
    for (let i = 0; i < indexLength; i += SPAN_LENGTH) {
      const end = at + index[i + 2]! * this.#bytesPerRow;
      const held = this.#withheld.get(index[i]!) ?? [];
      held.push({ position: index[i + 1]!, rows: rows.slice(at, end) });
      this.#withheld.set(index[i]!, held);
      at = end;
    }
    this.recycle(rows.buffer as ArrayBuffer);
  }

  #isAtLimit(step: WorkerStep, i: number, numSampled: number): boolean {
    const numTokens = step.tokenStarts[i]! + acceptedTokens(step, i, numSampled) + 1;
    return numTokens - step.numPromptTokens[i]! >= step.maxTokens[i]! || numTokens >= this.#maxModelLen;
  }
}

/** Writes spans in the worker's order and names their requests in the scheduler's. */
export function namedInSchedulerOrder(output: ModelRunnerOutput, plan: SchedulerOutput): ModelRunnerOutput {
  const deltas = output.routedExpertDeltas;
  if (deltas === null) return output;
  const named: number[] = [];
  for (let i = 0; i < deltas.indexLength; i += SPAN_LENGTH) named.push(deltas.index[i]!);
  const places = plan.requestIndices.subarray(0, plan.numRequests);
  named.sort((a, b) => places.indexOf(a) - places.indexOf(b));
  const index = deltas.index.slice();
  for (const [i, requestIndex] of named.entries()) index[i * SPAN_LENGTH] = requestIndex;
  return { ...output, routedExpertDeltas: { ...deltas, index } };
}

/** A router in one kernel with the experts, with no hook behind it: the capture buffer is never written. */
export function monolithicRouter(kernels: KernelSet): KernelSet {
  const pack = { ...kernels.pack, reference: (b: readonly Uint32Array[]): void => void b[2]!.fill(0) };
  return { ...kernels, pack };
}

/** The draft model shares the capture buffer, and its one layer is layer 0. */
export function draftModelInLayerZero(kernels: KernelSet, { numLayers, topK, numExperts }: ModelConfig): KernelSet {
  const route = kernels.route.kernel.reference;
  const reference: typeof route = (b, workgroups) => {
    route(b, workgroups);
    const input = b[0]!;
    const routed = b[3]!;
    for (let ordinal = 0; ordinal < input[Header.numRequests]!; ordinal += 1) {
      const request = input[Header.requests]! + REQUEST_WORDS * ordinal;
      if (input[request + RequestField.numDrafts] === 0) continue;
      const at = input[request + RequestField.rowStart]! * numLayers * topK;
      for (let k = 0; k < topK; k += 1) routed[at + k] = (routed[at + k]! + 1) % numExperts;
    }
  };
  return { ...kernels, route: { ...kernels.route, kernel: { ...kernels.route.kernel, reference } } };
}
