/** One way in which B may have come from A, and how well it explains B. */

import type { RequestRows, RowSet } from './row-set.ts';
import { commonIds } from './row-set.ts';

/** Where row `position`, layer `layer` of A's request would stand in B; `null`: nowhere. */
export type Place = Readonly<{ request: number; row: number; layer: number }>;
export type Alignment = (request: number, position: number, layer: number) => Place | null;

/** A cell is a layer of a row. More of them do not change what is found. */
const MOST_ROWS = 20_000;

/** Agreement of cells as sets, and in order, over the cells that the alignment places. */
export type Explained = Readonly<{ sets: number; exact: number; numCells: number }>;

/** Rows of A that are looked at: all of them, or evenly spread ones. */
export function* sampledRows(a: RowSet): Generator<readonly [request: number, position: number]> {
  const numRows = a.requests.reduce((sum, request) => sum + request.numRows, 0);
  const stride = Math.max(1, Math.ceil(numRows / MOST_ROWS));
  let index = 0;
  for (const [r, request] of a.requests.entries()) {
    for (let position = 0; position < request.numRows; position++) {
      if (index++ % stride === 0) yield [r, position];
    }
  }
}

export function explain(a: RowSet, b: RowSet, place: Alignment): Explained {
  let numCells = 0;
  let sets = 0;
  let exact = 0;
  for (const [r, position] of sampledRows(a)) {
    for (let layer = 0; layer < a.numLayers; layer++) {
      const target = place(r, position, layer);
      const other = target === null ? undefined : b.requests[target.request];
      if (target === null || other === undefined || !isInside(b, other, target)) continue;
      numCells++;
      const at = (position * a.numLayers + layer) * a.topK;
      const bt = (target.row * b.numLayers + target.layer) * b.topK;
      const own = a.requests[r]!;
      if (commonIds(a.topK, own.ids, at, other.ids, bt) !== a.topK) continue;
      sets++;
      if (isSameOrder(a.topK, own, at, other, bt)) exact++;
    }
  }
  return numCells === 0
    ? { sets: 0, exact: 0, numCells }
    : { sets: sets / numCells, exact: exact / numCells, numCells };
}

function isInside({ numLayers }: RowSet, { numRows }: RequestRows, { row, layer }: Place): boolean {
  return row >= 0 && row < numRows && layer >= 0 && layer < numLayers;
}

function isSameOrder(topK: number, a: RequestRows, at: number, b: RequestRows, bt: number): boolean {
  for (let k = 0; k < topK; k++) if (a.ids[at + k] !== b.ids[bt + k]) return false;
  return true;
}

/** Share of the layers of a row whose sets agree with a row of B; 0 outside of B. */
export function rowAgreement(a: RowSet, b: RowSet, request: number, position: number, row: number): number {
  const own = a.requests[request]!;
  const other = b.requests[request];
  if (other === undefined || row < 0 || row >= other.numRows) return 0;
  const numLayers = Math.min(a.numLayers, b.numLayers);
  let same = 0;
  for (let layer = 0; layer < numLayers; layer++) {
    const at = (position * a.numLayers + layer) * a.topK;
    const bt = (row * b.numLayers + layer) * b.topK;
    if (commonIds(a.topK, own.ids, at, other.ids, bt) === a.topK) same++;
  }
  return same / numLayers;
}
