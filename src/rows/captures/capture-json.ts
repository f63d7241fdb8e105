/**
 * Captures in JSON, as tools of several projects and this one write them:
 *
 *     { "numExperts", "topK", "layers": [numbers], "requests": [{ "id", "promptLen", "tokens"?, "rows": [[ids]] }],
 *       "steps"?: [[[request, first row, rows], …], …] }                            or all of it under "capture"
 *     { "numExperts", "topK", "layers": [numbers], "rows": [[ids]], "stepLengths"? }  passes in the order they ran in
 *     { "model": { "layers", "experts", "topK" },
 *       "requests": [{ "id", "promptTokenIds", "outputTokenIds", "rows": base64 }] }
 *
 * A row is its layers' ids one after the other; `[layers][topK]` is taken, too.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import { decodeBase64 } from '../base64.ts';
import type { JsonObject } from '../json-object.ts';
import { isObject } from '../json-object.ts';
import type { RowIds } from '../row-batch.ts';
import type { Capture, CapturedRequest, CapturedStep } from './capture.ts';

/** Whether `readCapture` is to be tried: what is none of these forms may still be an answer of a server. */
export function isCaptureJson(value: unknown): boolean {
  if (!isObject(value)) return false;
  if (isObject(value['capture'])) return true;
  return Array.isArray(value['rows']) || Array.isArray(value['requests']);
}

/** @throws BAD_FILE that names the request or row, and the rule */
export function readCapture(value: unknown, file: string): Capture {
  const reader = new CaptureReader(file);
  if (!isObject(value)) return reader.fail('not a JSON object');
  const root = isObject(value['capture']) ? value['capture'] : value;
  const name = typeof value['name'] === 'string' ? value['name'] : file;
  if (isObject(root['model'])) return reader.recording(root, root['model'], name);
  return Array.isArray(root['rows']) ? reader.passes(root, name) : reader.requests(root, name);
}

type Shape = Pick<Capture, 'numExperts' | 'topK' | 'layers'>;

class CaptureReader {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  fail(problem: string): never {
    throw RoutedExpertsError.of('BAD_FILE', this.#file, problem);
  }

  requests(root: JsonObject, name: string): Capture {
    const shape = this.#shape(root);
    const requests: CapturedRequest[] = [];
    const rows: unknown[] = [];
    for (const [i, request] of this.#objects(root['requests'], 'requests').entries()) {
      const { id = `r${i}`, promptLen = null, tokens = null } = request;
      const own = this.#list(request['rows'], `request ${i}: rows`);
      if (promptLen !== null && !isCount(promptLen)) this.fail(`request ${i}: promptLen is no whole number ≥ 0`);
      if (tokens !== null && this.#list(tokens, `request ${i}: tokens`).length < own.length) {
        this.fail(`request ${i}: fewer tokens than rows`);
      }
      requests.push({
        id: String(id),
        firstRow: rows.length,
        numRows: own.length,
        promptLen: promptLen,
        tokens: tokens as number[] | null,
      });
      for (const row of own) rows.push(row);
    }
    const steps = root['steps'] === undefined ? null : this.#steps(root['steps'], requests);
    return this.#capture({ ...shape, name, requests, knowsRequests: true, steps, ids: this.#ids(rows, shape) });
  }

  passes(root: JsonObject, name: string): Capture {
    const shape = this.#shape(root);
    const rows = this.#list(root['rows'], 'rows');
    const lengths = root['stepLengths'];
    const steps: CapturedStep[] = [];
    let row = 0;
    for (const length of lengths === undefined ? [] : this.#list(lengths, 'stepLengths')) {
      if (!isCount(length)) return this.fail(`stepLengths[${steps.length}] is no whole number ≥ 0`);
      steps.push([[row, length]]);
      row += length;
    }
    if (steps.length > 0 && row !== rows.length) this.fail(`stepLengths are of ${row} rows, there are ${rows.length}`);
    return this.#capture({
      ...shape,
      name,
      requests: [{ id: 'all', firstRow: 0, numRows: rows.length, promptLen: null, tokens: null }],
      knowsRequests: false,
      steps: steps.length === 0 ? null : steps,
      ids: this.#ids(rows, shape),
    });
  }

  recording(root: JsonObject, model: JsonObject, name: string): Capture {
    const size = (field: string): number => {
      const value = model[field];
      return isCount(value) && value > 0 ? value : this.fail(`model.${field} is no whole number ≥ 1`);
    };
    const numLayers = size('layers');
    const shape = {
      numExperts: size('experts'),
      topK: size('topK'),
      layers: Array.from({ length: numLayers }, (_, i) => i),
    };
    const width = numLayers * shape.topK;
    const requests: CapturedRequest[] = [];
    const parts: RowIds[] = [];
    let firstRow = 0;
    for (const [i, request] of this.#objects(root['requests'], 'requests').entries()) {
      const prompt = this.#list(request['promptTokenIds'], `request ${i}: promptTokenIds`) as number[];
      const output = this.#list(request['outputTokenIds'], `request ${i}: outputTokenIds`) as number[];
      const text = request['rows'];
      const bytes = typeof text === 'string' ? decodeBase64(text) : null;
      if (bytes === null) return this.fail(`request ${i}: rows is not base64`);
      const isWide = shape.numExperts > 256;
      const ids = isWide ? new Uint16Array(bytes.buffer, 0, bytes.length >> 1) : bytes;
      if (ids.length % width !== 0) this.fail(`request ${i}: ${ids.length} ids are no whole rows of ${width}`);
      const numRows = ids.length / width;
      const tokens = [...prompt, ...output];
      if (tokens.length < numRows) this.fail(`request ${i}: ${numRows} rows for ${tokens.length} tokens`);
      requests.push({
        id: typeof request['id'] === 'string' ? request['id'] : `r${i}`,
        firstRow,
        numRows,
        promptLen: prompt.length,
        tokens,
      });
      parts.push(ids);
      firstRow += numRows;
    }
    const ids = shape.numExperts > 256 ? new Uint16Array(firstRow * width) : new Uint8Array(firstRow * width);
    parts.forEach((part, i) => ids.set(part, requests[i]!.firstRow * width));
    return this.#capture({ ...shape, name, requests, knowsRequests: true, steps: null, ids });
  }

  #capture(parts: Omit<Capture, 'numRows'>): Capture {
    const width = parts.layers.length * parts.topK;
    return { ...parts, numRows: parts.ids.length / width };
  }

  #shape(root: JsonObject): Shape {
    const { numExperts, topK } = root;
    const layers = this.#list(root['layers'], 'layers');
    if (!isCount(numExperts) || numExperts === 0) this.fail('numExperts is no whole number ≥ 1');
    if (!isCount(topK) || topK === 0 || topK > numExperts) this.fail('topK is not in [1, numExperts]');
    if (layers.length === 0 || !layers.every(isCount)) this.fail('layers is not a list of layer numbers');
    return { numExperts: numExperts, topK: topK, layers: layers };
  }

  #ids(rows: readonly unknown[], { numExperts, topK, layers }: Shape): RowIds {
    const width = layers.length * topK;
    const ids = new Int32Array(rows.length * width);
    for (const [r, row] of rows.entries()) {
      const flat = Array.isArray(row) ? (row as unknown[]).flat() : this.fail(`row ${r} is not a list of ids`);
      if (flat.length !== width) this.fail(`row ${r} has ${flat.length} ids, not ${layers.length} layers × ${topK}`);
      for (const [i, id] of flat.entries()) {
        const isId = Number.isInteger(id) && (id as number) >= -1 && (id as number) < numExperts;
        if (!isId)
          this.fail(`row ${r}, layer ${layers[Math.floor(i / topK)]}: id ${String(id)} of ${numExperts} experts`);
        ids[r * width + i] = id as number;
      }
    }
    return ids;
  }

  #steps(value: unknown, requests: readonly CapturedRequest[]): CapturedStep[] {
    return this.#list(value, 'steps').map((step, s) =>
      this.#list(step, `steps[${s}]`).map((span) => {
        const [request, first, count] = Array.isArray(span) ? (span as unknown[]) : [];
        const owner = isCount(request) ? requests[request] : undefined;
        if (owner === undefined || !isCount(first) || !isCount(count) || first + count > owner.numRows) {
          return this.fail(`steps[${s}] has a span ${JSON.stringify(span)} that is not [request, first row, rows]`);
        }
        return [owner.firstRow + first, count] as const;
      }),
    );
  }

  #objects(value: unknown, what: string): readonly JsonObject[] {
    const list = this.#list(value, what);
    return list.every(isObject) ? list : this.fail(`${what} has an entry that is no object`);
  }

  #list(value: unknown, what: string): readonly unknown[] {
    return Array.isArray(value) ? (value as unknown[]) : this.fail(`${what} is not a list`);
  }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
