/** Puts together what the stages of a pipeline made of one step: tokens of the last, rows of all. */

import { BytePool } from '../../../capture/byte-pool.ts';
import { PositionRanges } from '../../../capture/position-ranges.ts';
import { rowShape } from '../../../capture/row-shape.ts';
import { SPAN_LENGTH, SpanReader, SpanWriter } from '../../../capture/spans.ts';
import type { ModelConfig } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { ModelRunnerOutput, RoutedExpertDeltas } from '../../../contract/model-runner-output.ts';
import { requireSameStep } from '../rank-agreement.ts';
import { RowPart, type RowSpan } from './row-part.ts';
import type { Stage } from './stage-plan.ts';

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
    const parts = new Map<number, RowPart>();
    for (const { routedExpertDeltas: deltas } of outputs) if (deltas !== null) this.#addPart(parts, deltas, stepId);
    if (parts.size === 0) return null;
    const all = this.#stages.map(({ firstLayer }) => parts.get(firstLayer) ?? RowPart.none());
    const first = all[0]!;
    const joined = new Uint8Array(this.#buffers.take(first.numRows * this.#rowBytes));
    // Stages run the same requests in the same order: nothing but a defect makes their parts differ.
    if (all.every((part) => part.hasRowsOf(first))) {
      for (const part of all) part.copyRows(0, first.numRows, joined, { to: 0, bytesPerRow: this.#rowBytes });
      return { rows: joined, numRows: first.numRows, index: first.copyIndex(), indexLength: first.indexLength };
    }
    // A span that is joined begins where one of a part begins, or behind one.
    const spans = new SpanWriter((2 * all.reduce((sum, { indexLength }) => sum + indexLength, 0)) / SPAN_LENGTH);
    for (const [request, ofFirst] of first.spans) {
      for (const span of ofFirst) this.#joinSpan({ request, span, all, joined, spans });
    }
    const deltas = spans.deltas(joined);
    return { ...deltas, missing: missingSpans(all, deltas) };
  }

  #addPart(parts: Map<number, RowPart>, deltas: RoutedExpertDeltas, stepId: number): void {
    const { firstLayer = 0 } = deltas;
    const stage = this.#stages.find((each) => each.firstLayer === firstLayer);
    if (stage === undefined || parts.has(firstLayer)) {
      const what = stage === undefined ? 'of which no stage begins there' : 'which came twice';
      throw RoutedExpertsError.of('INVARIANT', `rows from layer ${firstLayer} on in step ${stepId}, ${what}`);
    }
    const byteOffset = firstLayer * this.#bytesPerLayer;
    parts.set(firstLayer, new RowPart(deltas, { byteOffset, rowBytes: stage.numLayers * this.#bytesPerLayer }));
  }

  /** Joins the rows of a span of the first part, as far as all parts have them. */
  #joinSpan({ request, span, all, joined, spans }: SpanToJoin): void {
    const end = span.position + span.count;
    for (let position = span.position; position < end;) {
      const found = all.map((part) => part.spanAt(request, position));
      if (found.includes(null)) {
        position += 1;
        continue;
      }
      // As far as each part has rows from here on in one span.
      const to = Math.min(end, ...found.map((each) => each!.position + each!.count));
      const place = { to: spans.numRows, bytesPerRow: this.#rowBytes };
      for (const [i, part] of all.entries()) {
        part.copyRows(found[i]!.row + position - found[i]!.position, to - position, joined, place);
      }
      spans.add(request, position, to - position);
      position = to;
    }
  }
}

/** Rows that some parts have, and that were not joined since others have not. */
function missingSpans(all: readonly RowPart[], joined: RoutedExpertDeltas): Uint32Array {
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
  span: RowSpan;
  all: readonly RowPart[];
  joined: Uint8Array;
  spans: SpanWriter;
}>;
