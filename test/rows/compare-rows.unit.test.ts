// A comparison tells how many rows differ, where the first does, and which rows only one side has.

import { expect, test } from 'vitest';
import type { PositionRange, RoutedRows } from '../../src/contract/routed-rows.ts';
import { compareRows } from '../../src/rows/compare-rows.ts';

const LAYERS = 3;
const TOP_K = 2;
const WIDTH = LAYERS * TOP_K;

/** The id of entry `i` of row p is p + i. */
function rowsOf(start: number, count: number, missing: readonly PositionRange[] = [], rowsPerChunk = 4): RoutedRows {
  const chunks = Array.from({ length: Math.ceil((start + count) / rowsPerChunk) }, (_, chunk) =>
    Uint8Array.from(
      { length: rowsPerChunk * WIDTH },
      (__, i) => chunk * rowsPerChunk + Math.floor(i / WIDTH) + (i % WIDTH),
    ),
  );
  return { start, count, numLayers: LAYERS, topK: TOP_K, dtype: 'uint8', rowsPerChunk, chunks, missing };
}

/** The same rows as int32, with other ids at these entries. */
function changed(rows: RoutedRows, ids: Readonly<Record<number, number>>): RoutedRows {
  const all = Int32Array.from(rows.chunks.flatMap((chunk) => [...chunk!]));
  for (const [entry, id] of Object.entries(ids)) all[Number(entry)] = id;
  return { ...rows, dtype: 'int32', rowsPerChunk: all.length / WIDTH, chunks: [all] };
}

test('equal rows in other chunks and of another element type are equal', () => {
  const rows = rowsOf(2, 9);
  const same = { numCompared: 9, numDifferent: 0, first: null, onlyLeft: [], onlyRight: [] };
  expect(compareRows(rows, rowsOf(2, 9, [], 5))).toEqual(same);
  expect(compareRows(rows, changed(rows, {}))).toEqual(same);
});

test('the first difference has its position, its layer, and the ids of both sides', () => {
  const rows = rowsOf(2, 9);
  const other = changed(rows, { [7 * WIDTH + 5]: 99, [5 * WIDTH + 3]: 77, [5 * WIDTH + 4]: 88 });
  expect(compareRows(rows, other)).toMatchObject({
    numCompared: 9,
    numDifferent: 2,
    first: { position: 5, layer: 1, left: [7, 8], right: [7, 77] },
  });
});

test('the same ids in another order differ', () => {
  const rows = rowsOf(0, 1);
  expect(compareRows(rows, changed(rows, { 0: 1, 1: 0 })).numDifferent).toBe(1);
});

test('rows that only one side has are ranges, and are not compared', () => {
  const left = rowsOf(0, 10, [[2, 4]]);
  const right = changed(rowsOf(3, 12, [[5, 6]]), { [5 * WIDTH]: 200 });
  expect(compareRows(left, right)).toEqual({
    numCompared: 5,
    numDifferent: 0,
    first: null,
    onlyLeft: [
      [0, 2],
      [5, 6],
    ],
    onlyRight: [
      [3, 4],
      [10, 15],
    ],
  });
});

test('rows of another model are refused', () => {
  const other = { ...rowsOf(0, 4), numLayers: 2, topK: 3 };
  expect(() => compareRows(rowsOf(0, 4), other)).toThrow(expect.objectContaining({ code: 'BAD_VALUE' }));
});
