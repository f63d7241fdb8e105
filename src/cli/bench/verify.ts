/** Compares what was served with the oracle, token by token and row by row. */

import { countPositions, presentPieces } from '../../capture/routed-rows.ts';
import type { ModelConfig, RowsLayers } from '../../contract/config.ts';
import type { RecordedRequest, RecordedRouting } from '../../contract/recorded-routing.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { countModelLayers } from '../../kernels/model/model-layers.ts';
import { Oracle } from '../../kernels/model/oracle.ts';
import { Router } from '../../kernels/model/route/route.ts';
import type { ServedRequest } from './serve-workload.ts';

export type Verification = {
  /** Tokens that are not the oracle's (L2). */
  wrongTokens: number;
  /** Rows handed out, and of these equal to the oracle's, and not. */
  rowsDelivered: number;
  rowsVerified: number;
  rowsMismatched: number;
  /** Rows that no router makes, whatever the oracle says: a layer with an id twice, or one that is no expert's. */
  rowsImpossible: number;
  /**
   * Rows reported missing (L4), and of these of requests that ended by themselves, which lack a row only if their
   * design gives it up.
   */
  rowsMissing: number;
  rowsMissingOfFinished: number;
  /** Requests whose rows or output tokens are not those that L1 says, or absent altogether. */
  requestsWithWrongCount: number;
  /** The first thing found wrong, for the report. */
  firstProblem: string | null;
};

/** `rows` is `[numKnown, L, K]`, or `null` as long as only tokens were asked for. */
type Expected = Readonly<{ rows: Uint16Array | null; nextTokens: Uint32Array; numKnown: number }>;

export type VerifierOptions = Readonly<{
  /** What the workload's requests must get, in place of the oracle's answers. */
  recording?: RecordedRouting | null;
  /** The layers that rows are to count; absent = `routers`. */
  axis?: RowsLayers;
}>;

export class Verifier {
  readonly #router: Router;
  readonly #axis: RowsLayers;
  readonly #denseLayers: ReadonlySet<number>;
  /** That rows are to count. */
  readonly #numLayers: number;
  readonly #rowLength: number;
  readonly #recorded: Map<string, Expected> = new Map();
  /** The oracle's answers to prompts that are still in use: many designs serve the same prompts. */
  readonly #answers: WeakMap<Uint32Array, Expected> = new WeakMap();

  constructor(model: ModelConfig, { recording = null, axis = 'routers' }: VerifierOptions = {}) {
    this.#router = new Router(model);
    this.#axis = axis;
    this.#denseLayers = new Set(model.denseLayers);
    this.#numLayers = axis === 'all' ? countModelLayers(model) : model.numLayers;
    this.#rowLength = model.numLayers * model.topK;
    for (const request of recording?.requests ?? []) this.#recorded.set(request.requestId, recorded(request));
  }

  verify(requests: readonly ServedRequest[]): Verification {
    const result: Verification = {
      wrongTokens: 0,
      rowsDelivered: 0,
      rowsVerified: 0,
      rowsMismatched: 0,
      rowsImpossible: 0,
      rowsMissing: 0,
      rowsMissingOfFinished: 0,
      requestsWithWrongCount: 0,
      firstProblem: null,
    };
    for (const request of requests) this.#verifyRequest(request, result);
    return result;
  }

  #verifyRequest(request: ServedRequest, result: Verification): void {
    const { promptTokenIds, outputTokenIds, rows } = request;
    const numInputs = Math.max(0, promptTokenIds.length + outputTokenIds.length - 1);
    if (request.finishReason === 'refused') return;
    const expected = this.#expectedOf(request, numInputs, request.optedIn && rows !== null);
    for (let i = 0; i < outputTokenIds.length; i++) {
      if (expected.nextTokens[promptTokenIds.length - 1 + i] === outputTokenIds[i]) continue;
      result.wrongTokens++;
      result.firstProblem ??= `request ${request.requestId}: output token ${i} is ${outputTokenIds[i]}`;
    }
    if (request.finishReason === 'length' && outputTokenIds.length !== request.mostOutputTokens) {
      result.requestsWithWrongCount++;
      const counts = `${outputTokenIds.length} output tokens of ${request.mostOutputTokens}`;
      result.firstProblem ??= `request ${request.requestId}: ${counts}`;
    }
    if (!request.optedIn) return;
    if (rows === null || rows.start !== 0 || rows.count !== numInputs) {
      result.requestsWithWrongCount++;
      const range = rows === null ? 'no rows' : `rows [${rows.start}, ${rows.start + rows.count})`;
      result.firstProblem ??= `request ${request.requestId}: ${range}, expected [0, ${numInputs}) (L1)`;
      if (rows === null) return;
    }
    if (rows.numLayers !== this.#numLayers) {
      result.requestsWithWrongCount++;
      result.firstProblem ??= `request ${request.requestId}: rows of ${rows.numLayers} layers, not ${this.#numLayers}`;
    }
    const missing = countPositions(rows.missing);
    result.rowsMissing += missing;
    if (request.finishReason !== 'abort') result.rowsMissingOfFinished += missing;
    this.#compareRows(request.requestId, rows, expected, result);
  }

  #compareRows(requestId: string, rows: RoutedRows, expected: Expected, result: Verification): void {
    const width = this.#rowLength;
    const expectedRows = expected.rows!;
    if (this.#axis === 'all') this.#checkDenseLayers(requestId, rows, result);
    let gap = 0;
    const end = Math.min(rows.start + rows.count, expected.numKnown);
    for (let position = rows.start; position < end; position++) {
      while (gap < rows.missing.length && position >= rows.missing[gap]![1]) gap++;
      if (gap < rows.missing.length && position >= rows.missing[gap]![0]) continue;
      result.rowsDelivered++;
      const place = position - (rows.chunkOrigin ?? 0);
      const chunk = rows.chunks[Math.floor(place / rows.rowsPerChunk)];
      const offset = (place % rows.rowsPerChunk) * width;
      let isEqual = chunk !== null && chunk !== undefined;
      for (let i = 0; isEqual && i < width; i++) isEqual = chunk![offset + i] === expectedRows[position * width + i];
      if (isEqual) {
        result.rowsVerified++;
      } else {
        result.rowsMismatched++;
        result.firstProblem ??= `request ${requestId}: row ${position} is not the oracle's (L2)`;
      }
      const layer = chunk === null || chunk === undefined ? null : this.#impossibleLayer(chunk, offset);
      if (layer !== null) {
        result.rowsImpossible++;
        const { topK } = rows;
        const ids = chunk!.slice(offset + layer * topK, offset + (layer + 1) * topK).join(', ');
        result.firstProblem ??= `request ${requestId}: row ${position}, layer ${layer}: ${ids} are not ${topK} experts`;
      }
    }
  }

  /** Rows of all layers: as their reader gets them, nothing but zeros stands where a layer has no router. */
  #checkDenseLayers(requestId: string, rows: RoutedRows, result: Verification): void {
    const { topK } = rows;
    for (const piece of presentPieces(rows)) {
      for (let entry = 0; entry < piece.rows.length; entry++) {
        const layer = Math.floor(entry / topK) % rows.numLayers;
        if (piece.rows[entry] === 0 || !this.#denseLayers.has(layer)) continue;
        result.rowsImpossible++;
        result.firstProblem ??= `request ${requestId}: ids stand in layer ${layer}, which is dense`;
        return;
      }
    }
  }

  /** The first layer of the row that does not hold K distinct ids of experts, or `null`. */
  #impossibleLayer(ids: ArrayLike<number>, row: number): number | null {
    const { numLayers, numExperts, topK } = this.#router.model;
    for (let layer = 0; layer < numLayers; layer++) {
      const first = row + layer * topK;
      for (let k = first; k < first + topK; k++) {
        if (!(ids[k]! < numExperts)) return layer;
        for (let other = first; other < k; other++) if (ids[other] === ids[k]) return layer;
      }
    }
    return null;
  }

  /** The oracle's answers for the inputs `[0, numInputs)`: prompt, then the *oracle's* outputs. */
  #expectedOf({ requestId, promptTokenIds }: ServedRequest, numInputs: number, withRows: boolean): Expected {
    const recording = this.#recorded.get(requestId);
    if (recording !== undefined) return recording;
    const known = this.#answers.get(promptTokenIds);
    if (known !== undefined && known.numKnown >= numInputs && (known.rows !== null || !withRows)) return known;
    const oracle = new Oracle(this.#router);
    const expected: Expected = {
      rows: withRows ? new Uint16Array(numInputs * this.#rowLength) : null,
      nextTokens: new Uint32Array(numInputs),
      numKnown: numInputs,
    };
    for (let position = 0; position < numInputs; position++) {
      const token = position < promptTokenIds.length ? promptTokenIds[position]! : expected.nextTokens[position - 1]!;
      expected.nextTokens[position] = oracle.push(token);
      if (expected.rows !== null) oracle.row(expected.rows, position * this.#rowLength);
    }
    this.#answers.set(promptTokenIds, expected);
    return expected;
  }
}

function recorded({ promptTokenIds, outputTokenIds, rows }: RecordedRequest): Expected {
  const numKnown = promptTokenIds.length + outputTokenIds.length - 1;
  const nextTokens = new Uint32Array(numKnown);
  nextTokens.set(promptTokenIds.subarray(1));
  nextTokens.set(outputTokenIds, promptTokenIds.length - 1);
  return { rows: Uint16Array.from(rows), nextTokens, numKnown };
}
