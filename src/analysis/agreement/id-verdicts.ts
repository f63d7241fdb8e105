/** Disturbances within a layer of a row: columns in another order, ids of slots in place of experts. */

import { explain, sampledRows } from './alignment.ts';
import type { RowSet } from './row-set.ts';
import { LEAST_EXPLAINED, LEAST_GAIN } from './thresholds.ts';
import type { Verdict } from './verdict.ts';
import { percent, verdict } from './verdict.ts';

type Cell = Readonly<{ a: readonly number[]; b: readonly number[]; layer: number }>;

function* cells(a: RowSet, b: RowSet): Generator<Cell> {
  const { topK, numLayers } = a;
  for (const [r, position] of sampledRows(a)) {
    const other = b.requests[r];
    if (other === undefined || position >= other.numRows) continue;
    for (let layer = 0; layer < numLayers; layer++) {
      const at = (position * numLayers + layer) * topK;
      yield { a: [...a.requests[r]!.ids.subarray(at, at + topK)], b: [...other.ids.subarray(at, at + topK)], layer };
    }
  }
}

/** The sets agree, their order does not; or `[L][K]` was read as `[K][L]`. */
export function columnsVerdict(a: RowSet, b: RowSet): Verdict | null {
  if (a.topK < 2) return null;
  const plain = explain(a, b, (request, row, layer) => ({ request, row, layer }));
  if (plain.sets < LEAST_EXPLAINED) return transposedVerdict(a, b, plain.sets);
  if (plain.exact >= LEAST_EXPLAINED) return null;
  let sorted = 0;
  let numCells = 0;
  const columns = Array.from({ length: a.topK }, () => new Float64Array(a.topK));
  for (const cell of cells(a, b)) {
    numCells++;
    if (cell.b.every((id, k) => k === 0 || cell.b[k - 1]! <= id)) sorted++;
    cell.b.forEach((id, k) => {
      const from = cell.a.indexOf(id);
      if (from >= 0) columns[k]![from]!++;
    });
  }
  if (sorted >= LEAST_EXPLAINED * numCells) {
    return verdict('columns-sorted', 'B has the experts of A in each layer, sorted by id: the order by weight is lost');
  }
  const order = columns.map((counts) => counts.indexOf(Math.max(...counts)));
  const isFixed = columns.every((counts, k) => counts[order[k]!]! >= LEAST_EXPLAINED * numCells);
  if (isFixed && new Set(order).size === order.length) {
    return verdict(
      'columns-permuted',
      `B has the columns of A in another order: its column k is A's ${order.join(', ')}`,
    );
  }
  const share = percent(plain.sets);
  return verdict(
    'same-sets',
    `B has the experts of A in ${share} of layers, in another order from row to row`,
    plain.sets,
  );
}

function transposedVerdict(a: RowSet, b: RowSet, plain: number): Verdict | null {
  const { topK, numLayers } = a;
  const width = topK * numLayers;
  let same = 0;
  let looked = 0;
  for (const [r, position] of sampledRows(a)) {
    const other = b.requests[r];
    if (other === undefined || position >= other.numRows) continue;
    for (let entry = 0; entry < width; entry++) {
      const [layer, k] = [Math.floor(entry / topK), entry % topK];
      looked++;
      if (a.requests[r]!.ids[position * width + entry] === other.ids[position * width + k * numLayers + layer]) same++;
    }
  }
  const share = looked === 0 ? 0 : same / looked;
  if (share < LEAST_EXPLAINED || share - plain < LEAST_GAIN * (1 - plain)) return null;
  return verdict('columns-transposed', 'a row of B is a row of A as [K][L] in place of [L][K]', share);
}

/** Each id of B stands for one id of A, layer by layer: learnt on every other cell, tested on the rest. */
export function idsVerdict(a: RowSet, b: RowSet): Verdict | null {
  const votes = new Map<number, Map<number, number>>();
  const tests: (readonly [key: number, id: number])[] = [];
  let seen = 0;
  let unchanged = 0;
  const perLayer = new Float64Array(a.numLayers);
  for (const cell of cells(a, b)) {
    const isTest = perLayer[cell.layer]!++ % 2 === 1;
    cell.b.forEach((slot, k) => {
      const id = cell.a[k]!;
      if (slot < 0 || id < 0) return;
      seen++;
      if (slot === id) unchanged++;
      const key = cell.layer * 2 ** 20 + slot;
      if (isTest) {
        tests.push([key, id]);
        return;
      }
      const vote = votes.get(key) ?? new Map<number, number>();
      vote.set(id, (vote.get(id) ?? 0) + 1);
      votes.set(key, vote);
    });
  }
  const map = new Map([...votes].map(([key, vote]) => [key, [...vote].sort((x, y) => y[1] - x[1])[0]![0]]));
  const known = tests.filter(([key]) => map.has(key));
  const right = known.filter(([key, id]) => map.get(key) === id).length;
  const isTested = known.length >= LEAST_GAIN * tests.length && known.length > 0;
  if (!isTested || right < LEAST_EXPLAINED * known.length || unchanged >= LEAST_EXPLAINED * seen) return null;
  // Slots of the same expert are two ids of B for one of A.
  const slots = map.size;
  const experts = new Set([...map].map(([key, id]) => Math.floor(key / 2 ** 20) * 2 ** 20 + id)).size;
  const words =
    `B has ids of slots, not of experts: each of its ids stands for one expert of A ` +
    `(${slots} slots of ${experts} experts over all layers${slots > experts ? ', so some have replicas' : ''})`;
  return verdict('physical-ids', words, right / known.length);
}
