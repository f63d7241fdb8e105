/** Puts together what the stages of a pipeline made of one step: tokens of the last, rows of all. */

import { BytePool } from '../../../capture/byte-pool.ts';
import { PositionRanges } from '../../../capture/position-ranges.ts';
import { rowShape } from '../../../capture/row-shape.ts';
import { SPAN_LENGTH, SpanReader, SpanWriter } from '../../../capture/spans.ts';
import type { ModelConfig } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { ModelRunnerOutput, RoutedExpertDeltas } from '../../../contract/model-runner-output.ts';
import { requireSameStep } from '../rank-agreement.ts';
import type { Stage } from './stage-plan.ts';

/** Rows `[position, position + count)` of a request, from row `row` of its part on. */
type Span = { readonly position: number; readonly count: number; readonly row: number };

/** The rows of one stage in one step. */
type Part = Readonly<{
  rows: Uint8Array;
  numRows: number;
  /** Of its ids in a row of the model. */
  byteOffset: number;
  rowBytes: number;
  /** By request. */
  spans: ReadonlyMap<number, readonly Span[]>;
  numSpans: number;
}>;

/**
 *     row of the model          │ stage 0    │ stage 1         │ stage 2 │
 *     parts, by first layer       0            2                 5            a part for each stage with a router
 *     request 7, position 40      [ K ids … ]  [ K ids … ]       –            two of three are there: missing
 *     request 7, position 41      [ K ids … ]  [ K ids … ]       [ K ids ]    whole
 *
 * Parts meet by request, position and first layer. A row of which a part is not there is missing as a whole, and is
 * said to be (L4): nothing stands in for it. The payload's index must be spans, as that of `deltas` is.
 */
export class StageJoiner {
  readonly #stages: readonly Stage[];
  readonly #rowBytes: number;
  readonly #bytesPerLayer: number;
  readonly #buffers: BytePool = new BytePool();

  constructor(model: ModelConfig, stages: readonly Stage[]) {
    this.#stages = stages.filter(({ numLayers }) => numLayers > 0);
    const { bytesPerRow } = rowShape(model);
    this.#rowBytes = bytesPerRow;
    this.#bytesPerLayer = bytesPerRow / model.numLayers;
  }

  /**
   * `outputs`: of one step, in the order of the stages. What they hold is copied. Throws INVARIANT for outputs of
   * different steps, and for rows of a stage that there is not, or that come twice.
   */
  join(outputs: readonly ModelRunnerOutput[]): ModelRunnerOutput {
    const last = outputs.at(-1)!;
    for (const [stage, output] of outputs.entries()) requireSameStep(last, output, stage);
    return { ...last, routedExpertDeltas: this.#joinRows(last.stepId, outputs) };
  }

  /** Takes back the rows of an output. */
  recycle(rows: Uint8Array): void {
    this.#buffers.give(rows.buffer as ArrayBuffer);
  }

  #joinRows(stepId: number, outputs: readonly ModelRunnerOutput[]): RoutedExpertDeltas | null {
    const parts = new Map<number, Part>();
    for (const { routedExpertDeltas: deltas } of outputs) if (deltas !== null) this.#addPart(parts, deltas, stepId);
    if (parts.size === 0) return null;
    const all = this.#stages.map(({ firstLayer }) => parts.get(firstLayer) ?? NO_PART);
    const first = all[0]!;
    const joined = new Uint8Array(this.#buffers.take(first.numRows * this.#rowBytes));
    // A span that is joined begins where one of a part begins, or behind one.
    const spans = new SpanWriter(2 * all.reduce((sum, { numSpans }) => sum + numSpans, 0));
    for (const [request, ofFirst] of first.spans) {
      for (const span of ofFirst) this.#joinSpan({ request, span, all, joined, spans });
    }
    const deltas = spans.deltas(joined);
    const isWhole = all.every(({ numRows }) => numRows === spans.numRows);
    return isWhole ? deltas : { ...deltas, missing: missingSpans(all, deltas) };
  }

  #addPart(parts: Map<number, Part>, deltas: RoutedExpertDeltas, stepId: number): void {
    const { firstLayer = 0, rows, numRows, indexLength } = deltas;
    const stage = this.#stages.find((each) => each.firstLayer === firstLayer);
    if (stage === undefined || parts.has(firstLayer)) {
      const what = stage === undefined ? 'of which no stage begins there' : 'which came twice';
      throw RoutedExpertsError.of('INVARIANT', `rows from layer ${firstLayer} on in step ${stepId}, ${what}`);
    }
    const spans = new Map<number, Span[]>();
    for (const span = new SpanReader(deltas); span.next();) {
      const { requestIndex, position, count, row } = span;
      const ofRequest = spans.get(requestIndex);
      if (ofRequest === undefined) spans.set(requestIndex, [{ position, count, row }]);
      else ofRequest.push({ position, count, row });
    }
    const byteOffset = firstLayer * this.#bytesPerLayer;
    const rowBytes = stage.numLayers * this.#bytesPerLayer;
    parts.set(firstLayer, { rows, numRows, byteOffset, rowBytes, spans, numSpans: indexLength / SPAN_LENGTH });
  }

  /** Joins the rows of a span of the first part, as far as all parts have them. */
  #joinSpan({ request, span, all, joined, spans }: SpanToJoin): void {
    const end = span.position + span.count;
    for (let position = span.position; position < end;) {
      // As far as each part has rows from here on in one span.
      let to = end;
      let isWhole = true;
      const places = all.map((part) => {
        const found = spanAt(part, request, position);
        if (found === null) isWhole = false;
        else to = Math.min(to, found.position + found.count);
        return found === null ? -1 : found.row + position - found.position;
      });
      if (!isWhole) {
        position += 1;
        continue;
      }
      for (const [i, part] of all.entries()) this.#copy(part, places[i]!, to - position, joined, spans.numRows);
      spans.add(request, position, to - position);
      position = to;
    }
  }

  #copy({ rows, rowBytes, byteOffset }: Part, row: number, count: number, joined: Uint8Array, to: number): void {
    for (let i = 0; i < count; i++) {
      const from = (row + i) * rowBytes;
      joined.set(rows.subarray(from, from + rowBytes), (to + i) * this.#rowBytes + byteOffset);
    }
  }
}

const NO_PART: Part = {
  rows: new Uint8Array(0),
  numRows: 0,
  byteOffset: 0,
  rowBytes: 0,
  spans: new Map(),
  numSpans: 0,
};

/** Rows that some parts have, and that were not joined since others have not. */
function missingSpans(all: readonly Part[], joined: RoutedExpertDeltas): Uint32Array {
  const known = new Map<number, PositionRanges>();
  const rangesOf = (request: number): PositionRanges => {
    const ranges = known.get(request) ?? new PositionRanges();
    known.set(request, ranges);
    return ranges;
  };
  for (const span = new SpanReader(joined); span.next();) {
    rangesOf(span.requestIndex).add(span.position, span.position + span.count);
  }
  const missing: number[] = [];
  for (const { spans } of all) {
    for (const [request, ofRequest] of spans) {
      for (const { position, count } of ofRequest) {
        for (const [from, to] of rangesOf(request).gaps(position, position + count)) {
          missing.push(request, from, to - from);
          rangesOf(request).add(from, to);
        }
      }
    }
  }
  return Uint32Array.from(missing);
}

type SpanToJoin = Readonly<{
  request: number;
  span: Span;
  all: readonly Part[];
  joined: Uint8Array;
  spans: SpanWriter;
}>;

/** The span that has the row, or `null`. */
function spanAt({ spans }: Part, request: number, position: number): Span | null {
  return spans.get(request)?.find((span) => position >= span.position && position < span.position + span.count) ?? null;
}
