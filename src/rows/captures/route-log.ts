/**
 * Logs of `{"type":"route"}` lines, as several public tools write them: one line a row and layer, and a `meta` line.
 *
 *     {"type": "route", "req_id": "r1", "token_idx": 0, "layer": 0, "topk_ids": [...], "topk_weights": [...]}
 *
 * `token_idx` is the row in its batch: where it does not grow, another forward pass has begun. `req_id` is one name for
 * everything, so that requests are unknown.
 */

import type { JsonObject } from '../json-object.ts';
import { isObject } from '../json-object.ts';

/** One forward pass. */
export type LoggedPass = Readonly<{
  /** Ascending. */
  layers: readonly number[];
  topK: number;
  numRows: number;
  /** `[numRows, L, K]`; `weights`: likewise, `null` if a line had none. */
  ids: Int32Array;
  weights: Float64Array | null;
  /** Line of the first row, from 1. */
  firstLine: number;
}>;

/** Whether a line's value belongs to such a log. */
export function isRouteLine(value: unknown): boolean {
  return isObject(value) && (value['type'] === 'route' || (value['type'] === 'meta' && 'layers_logged' in value));
}

type LayerRows = { ids: number[]; weights: number[]; lastToken: number; numRows: number };

/** Is fed line by line. Throws an Error that begins with a verb, for a line that breaks the form. */
export class RouteLog {
  #meta: JsonObject | null = null;
  #rows: Map<number, LayerRows> = new Map();
  #topK: number | null = null;
  #firstLine = 1;
  readonly #requestIds: Set<unknown> = new Set();

  /** The `meta` line; `null`: none so far. */
  get meta(): JsonObject | null {
    return this.#meta;
  }

  get requestIds(): readonly unknown[] {
    return [...this.#requestIds];
  }

  /** Returns the pass that ends before this line, if one does. */
  add(value: unknown, line: number): LoggedPass | null {
    if (!isObject(value)) throw new Error('is no JSON object');
    if (value['type'] === 'meta') this.#meta ??= value;
    if (value['type'] !== 'route') return null;
    const { layer, token_idx: token, topk_ids: ids, topk_weights: weights, req_id: request } = value;
    if (!Number.isSafeInteger(layer)) throw new Error('has no layer');
    if (!Number.isSafeInteger(token)) throw new Error('has no token_idx');
    if (!Array.isArray(ids) || !ids.every(Number.isSafeInteger)) throw new Error('has no topk_ids');
    this.#topK ??= ids.length;
    if (ids.length !== this.#topK) throw new Error(`has ${ids.length} ids, the lines before have ${this.#topK}`);
    if (this.#requestIds.size < MOST_REQUEST_IDS) this.#requestIds.add(request);
    const before = this.#rows.get(layer as number);
    const ended = before !== undefined && (token as number) <= before.lastToken ? this.end() : null;
    if (this.#rows.size === 0) this.#firstLine = line;
    const rows = this.#rows.get(layer as number) ?? { ids: [], weights: [], lastToken: -1, numRows: 0 };
    rows.lastToken = token as number;
    rows.numRows++;
    rows.ids.push(...(ids as number[]));
    if (Array.isArray(weights) && weights.length === ids.length) rows.weights.push(...(weights as number[]));
    this.#rows.set(layer as number, rows);
    return ended;
  }

  /** The pass that ends with the log; `null`: there is none. */
  end(): LoggedPass | null {
    const layers = [...this.#rows.keys()].sort((a, b) => a - b);
    if (layers.length === 0 || this.#topK === null) return null;
    const topK = this.#topK;
    const perLayer = layers.map((layer) => this.#rows.get(layer)!);
    const { numRows } = perLayer[0]!;
    const other = perLayer.findIndex((rows) => rows.numRows !== numRows);
    if (other >= 0) {
      const [a, b] = [layers[0]!, layers[other]!];
      throw new Error(`ends a pass of ${numRows} rows of layer ${a} and ${perLayer[other]!.numRows} of layer ${b}`);
    }
    const ids = new Int32Array(numRows * layers.length * topK);
    const weights = new Float64Array(ids.length);
    let hasWeights = true;
    for (const [l, rows] of perLayer.entries()) {
      hasWeights &&= rows.weights.length === rows.ids.length;
      for (let row = 0; row < numRows; row++) {
        for (let k = 0; k < topK; k++) {
          ids[(row * layers.length + l) * topK + k] = rows.ids[row * topK + k]!;
          if (hasWeights) weights[(row * layers.length + l) * topK + k] = rows.weights[row * topK + k]!;
        }
      }
    }
    const firstLine = this.#firstLine;
    this.#rows = new Map();
    return { layers, topK, numRows, ids, weights: hasWeights ? weights : null, firstLine };
  }
}

/** More are not told apart: a log that names its requests may have millions. */
const MOST_REQUEST_IDS = 1000;
