/** Rows of the same requests from two sources, held as a whole. */

import type { RowBatch, RowIds, RowsShape } from '../../rows/row-batch.ts';

export type RequestRows = Readonly<{
  id: string;
  /** `[numRows, L, K]`; −1: no id. */
  ids: RowIds;
  numRows: number;
  /** `null`: unknown. */
  promptLen: number | null;
}>;

export type RowSet = Readonly<{ numLayers: number; topK: number; requests: readonly RequestRows[] }>;

/** Is fed with batches; names requests by their number, unless told better. */
export class RowSetBuilder {
  readonly #shape: RowsShape;
  readonly #parts: RowIds[][] = [];

  constructor(shape: RowsShape) {
    this.#shape = shape;
  }

  add({ ids, numRows, startsRequest }: RowBatch): void {
    if (startsRequest || this.#parts.length === 0) this.#parts.push([]);
    this.#parts.at(-1)!.push(ids.slice(0, numRows * this.#shape.numLayers * this.#shape.topK));
  }

  /** `named`: ids and prompt lengths of the requests, where they are known. */
  end(named: readonly Pick<RequestRows, 'id' | 'promptLen'>[] = []): RowSet {
    const { numLayers, topK } = this.#shape;
    const requests = this.#parts.map((parts, i): RequestRows => {
      const ids = joined(parts);
      const { id = `r${i}`, promptLen = null } = named[i] ?? {};
      return { id, promptLen, ids, numRows: ids.length / (numLayers * topK) };
    });
    return { numLayers, topK, requests };
  }
}

export function numRowsOf({ requests }: RowSet): number {
  return requests.reduce((sum, { numRows }) => sum + numRows, 0);
}

/** The same rows without the boundaries of requests. */
export function asOneList(set: RowSet): RowSet {
  const ids = joined(set.requests.map((request) => request.ids));
  return { ...set, requests: [{ id: 'r0', ids, numRows: numRowsOf(set), promptLen: null }] };
}

function joined(parts: readonly RowIds[]): RowIds {
  if (parts.length === 1) return parts[0]!;
  const all = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** A row is a routing unless it has no id at all, or zeros only. */
export function isRouting({ numLayers, topK }: RowSet, { ids }: RequestRows, row: number): boolean {
  const width = numLayers * topK;
  const first = ids[row * width]!;
  if (first > 0 || (first === 0 && width === 1)) return true;
  for (let i = row * width + 1; i < (row + 1) * width; i++) if (ids[i] !== first) return true;
  return first > 0;
}

/** Whether two rows are the same, ids and order. */
export function sameRow(width: number, a: RequestRows, row: number, b: RequestRows, other: number): boolean {
  for (let i = 0; i < width; i++) if (a.ids[row * width + i] !== b.ids[other * width + i]) return false;
  return true;
}

/** Ids that two places have in common, duplicates once. */
export function commonIds(topK: number, a: RowIds, at: number, b: RowIds, other: number): number {
  let common = 0;
  for (let i = 0; i < topK; i++) {
    const id = a[at + i]!;
    if (id < 0) continue;
    for (let k = 0; k < topK; k++) {
      if (b[other + k] === id) {
        common++;
        break;
      }
    }
  }
  return common;
}
