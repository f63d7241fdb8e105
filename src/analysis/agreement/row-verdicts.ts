/** Disturbances of whole rows: requests swapped, rows shifted, other weights from a position on. */

import { explain, rowAgreement } from './alignment.ts';
import { LEAST_EXPLAINED, LEAST_GAIN } from './thresholds.ts';
import type { RequestRows, RowSet } from './row-set.ts';
import type { Verdict } from './verdict.ts';
import { count, percent, verdict } from './verdict.ts';

/** Rows of a request that are enough to know it by. */
const ROWS_TO_KNOW = 64;

/** Blocks of rows that changed places, where requests are unknown: at most so many. */
const MOST_BLOCKS = 4;

/** Each request of A is looked for among those of B. Where requests are unknown, blocks of rows are. */
export function swappedVerdict(a: RowSet, b: RowSet): Verdict | null {
  if (a.requests.length === 1 && b.requests.length === 1) return blocksVerdict(a, b);
  if (b.requests.length !== a.requests.length) return null;
  const own = a.requests.map((_, r) => likeness(a, b, r, r));
  const lost = own.flatMap((share, r) => (share < LEAST_EXPLAINED ? [r] : []));
  if (lost.length < 2) return null;
  const found = lost.map((r) => lost.findIndex((other) => other !== r && likeness(a, b, r, other) >= LEAST_EXPLAINED));
  if (found.some((index) => index < 0) || new Set(found).size < found.length) return null;
  const moved = lost.map((r, i) => `${a.requests[r]!.id} stands where ${a.requests[lost[found[i]!]!]!.id} is in A`);
  const what = lost.length === 2 ? 'two requests are swapped' : `${lost.length} requests are in another order`;
  return verdict('requests-swapped', `in B ${what}: ${moved.slice(0, 2).join(', ')}`);
}

/** Rows of one list that stand in another one in a few blocks, each whole, in another order. */
function blocksVerdict(a: RowSet, b: RowSet): Verdict | null {
  const [rowsA, rowsB] = [a.requests[0]!, b.requests[0]!];
  if (rowsA.numRows !== rowsB.numRows || a.numLayers !== b.numLayers) return null;
  const width = a.numLayers * a.topK;
  const keyOf = ({ ids }: RequestRows, row: number): string => ids.subarray(row * width, (row + 1) * width).join();
  const places = new Map<string, number>();
  for (let row = 0; row < rowsA.numRows; row++) places.set(keyOf(rowsA, row), row);
  const blocks: { from: number; source: number; length: number }[] = [];
  for (let row = 0; row < rowsB.numRows; row++) {
    const source = places.get(keyOf(rowsB, row));
    const newest = blocks.at(-1);
    if (source === undefined) return null;
    if (newest !== undefined && newest.source + newest.length === source) newest.length++;
    else if (blocks.push({ from: row, source, length: 1 }) > MOST_BLOCKS) return null;
  }
  const moved = blocks.filter(({ from, source }) => from !== source);
  const numMoved = moved.reduce((sum, { length }) => sum + length, 0);
  // Every row of A is there once; rows that only repeat are no blocks.
  if (moved.length < 2 || new Set(blocks.map(({ source }) => source)).size < blocks.length) return null;
  if (blocks.reduce((sum, { length }) => sum + length, 0) !== places.size) return null;
  const { from, source, length } = moved[0]!;
  const words =
    `in B ${moved.length} blocks of rows, ${numMoved} rows, changed places, as if requests were swapped: ` +
    `rows ${from} to ${from + length - 1} of B are rows ${source} to ${source + length - 1} of A`;
  return verdict('requests-swapped', words);
}

function likeness(a: RowSet, b: RowSet, request: number, other: number): number {
  const numRows = Math.min(a.requests[request]!.numRows, b.requests[other]!.numRows);
  const stride = Math.max(1, Math.floor(numRows / ROWS_TO_KNOW));
  const moved = { ...b, requests: a.requests.map(() => b.requests[other]!) };
  let sum = 0;
  let looked = 0;
  for (let row = 0; row < numRows; row += stride) {
    sum += rowAgreement(a, moved, request, row, row);
    looked++;
  }
  return looked === 0 ? 0 : sum / looked;
}

const SHIFTS = [1, -1, 2, -2, 3, -3, 4, -4];

/** From some position of each request on, B has the row of a neighbour: from inside of a request, or from its first. */
export function rowsVerdict(a: RowSet, b: RowSet, from: 'inside' | 'from the first row'): Verdict | null {
  const plain = explain(a, b, (request, row, layer) => ({ request, row, layer })).sets;
  let best: Readonly<{
    shift: number;
    explained: number;
    turns: readonly (number | null)[];
    isInside: boolean;
  }> | null = null;
  for (const shift of SHIFTS) {
    const found = a.requests.map((_, r) => turnOf(a, b, r, shift));
    const numRows = found.reduce((sum, each) => sum + each.numRows, 0);
    const explained = found.reduce((sum, each) => sum + each.agreement, 0) / Math.max(1, numRows);
    if (best === null || explained > best.explained) {
      const isInside = found.some(({ turn, before }) => turn !== null && turn > 0 && before >= LEAST_GAIN * turn);
      best = { shift, explained, turns: found.map(({ turn }) => turn), isInside };
    }
  }
  if (best === null || best.explained < LEAST_EXPLAINED) return null;
  if (plain === 1 || best.explained - plain < LEAST_GAIN * (1 - plain)) return null;
  const { shift, explained, turns } = best;
  const turned = turns.flatMap((turn, r) => (turn === null ? [] : [{ turn, id: a.requests[r]!.id }]));
  if (turned.length === 0 || (from === 'inside' && !best.isInside)) return null;
  const { turn, id } = turned[0]!;
  const isAll = turned.length === a.requests.length;
  const where =
    a.requests.length === 1
      ? `from position ${turn} on`
      : isAll && turned.every((each) => each.turn === turn)
        ? `from position ${turn} on, in every request`
        : `from position ${turn} on in request ${id}${turned.length > 1 ? `, and in ${turned.length - 1} more` : ''}`;
  const what = shift > 0 ? 'a row of B has what A has before it' : 'a row of B has what A has behind it';
  return verdict('shifted-rows', `B is A shifted by ${count(Math.abs(shift), 'row')} ${where}: ${what}`, explained);
}

type Turn = Readonly<{
  /** The first row of B that is shifted; `null`: none is. */
  turn: number | null;
  /** Sum over rows of B of the agreement with what they are then. */
  agreement: number;
  /** Of the rows before the turn. */
  before: number;
  numRows: number;
}>;

/** The position that best parts B into rows as in A, and rows with what A has `shift` before. */
function turnOf(a: RowSet, b: RowSet, request: number, shift: number): Turn {
  const rowsA = a.requests[request]!.numRows;
  const numRows = b.requests[request]?.numRows ?? 0;
  const straight = (row: number): number => (row < rowsA ? rowAgreement(a, b, request, row, row) : 0);
  const shifted = (row: number): number => {
    const source = row - shift;
    return source >= 0 && source < rowsA ? rowAgreement(a, b, request, source, row) : 0;
  };
  // From the end: what follows a turn is shifted, what goes before is not.
  let behind = 0;
  for (let row = 0; row < numRows; row++) behind += shifted(row);
  let before = 0;
  let best = { turn: 0, agreement: behind, before };
  for (let row = 0; row < numRows; row++) {
    const here = straight(row);
    before += here;
    behind -= shifted(row);
    const agreement = before + behind;
    // Of equal parts, rows that stand where they should are not shifted.
    if (agreement > best.agreement || (agreement === best.agreement && here > 0)) {
      best = { turn: row + 1, agreement, before };
    }
  }
  // At the ends a shift has no row to come from.
  const lost =
    best.turn < numRows && (best.turn === 0 || shift < 0) ? Math.min(Math.abs(shift), numRows - best.turn) : 0;
  return {
    turn: best.turn >= numRows ? null : best.turn,
    agreement: best.agreement,
    before: best.before,
    numRows: Math.max(0, numRows - lost),
  };
}

/** A chance below which rows before the first difference do not agree by luck. */
const LUCK = 1e-3;

/** B is A up to a position, and from there on rows differ far more often than that could have happened by chance. */
export function weightsVerdict(a: RowSet, b: RowSet): Verdict | null {
  const turns: { id: string; position: number; share: number }[] = [];
  let luck = 1;
  for (const [r, { id, numRows }] of a.requests.entries()) {
    const end = Math.min(numRows, b.requests[r]?.numRows ?? 0);
    let first = 0;
    while (first < end && rowAgreement(a, b, r, first, first) === 1) first++;
    if (first === end) continue;
    let differing = 0;
    let share = 0;
    for (let row = first; row < end; row++) {
      const agreement = rowAgreement(a, b, r, row, row);
      share += agreement;
      if (agreement < 1) differing++;
    }
    const rate = (differing + 1) / (end - first + 2);
    luck *= (1 - rate) ** first;
    turns.push({ id, position: first, share: share / (end - first) });
  }
  if (turns.length === 0 || luck > LUCK) return null;
  const turn = turns.find(({ position }) => position > 0)!;
  const share = turns.reduce((sum, each) => sum + each.share, 0) / turns.length;
  const where = turns.length === 1 && a.requests.length === 1 ? '' : ` in request ${turn.id}`;
  const more = turns.length > 1 ? `, and ${count(turns.length - 1, 'more request')} from positions of their own` : '';
  const words =
    `B is A up to position ${turn.position - 1}${where}; from position ${turn.position} on${more} only ` +
    `${percent(share)} of layers agree: other weights, or KV of other tokens, from there on`;
  return verdict('other-weights', words, null);
}
