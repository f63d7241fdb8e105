/** Pieces of rows joined: nothing lost, nothing twice, what lies between two pieces reported missing (L3, L4). */

import { describe, expect, test } from 'vitest';
import { RowJoiner } from '../../src/capture/row-joiner.ts';
import { countPresent, routedRows, rowAt, toArray } from '../../src/capture/routed-rows.ts';
import type { PositionRange, RoutedRows } from '../../src/contract/routed-rows.ts';

const FORM = { numLayers: 1, topK: 2, dtype: 'uint8' } as const;

/** Row p is `[p, 2p]`. */
const row = (position: number): number[] => [position % 256, (2 * position) % 256];

/** Rows `[start, end)` as a piece of its own. */
function piece(start: number, end: number, missing: readonly PositionRange[] = []): RoutedRows {
  const chunk = Uint8Array.from(Array.from({ length: end - start }, (_, i) => row(start + i)).flat());
  return routedRows(FORM, start, end, { chunks: [chunk], missing });
}

/** Rows `[start, end)` in pages of 4 from position 0. */
function paged(start: number, end: number): RoutedRows {
  const chunks = Array.from({ length: Math.ceil(end / 4) }, (_, page) =>
    (page + 1) * 4 <= start ? null : Uint8Array.from(Array.from({ length: 4 }, (_row, i) => row(page * 4 + i)).flat()),
  );
  return routedRows(FORM, start, end, { rowsPerChunk: 4, chunks });
}

function joined(pieces: readonly (RoutedRows | null)[]): RoutedRows | null {
  const joiner = new RowJoiner();
  for (const each of pieces) if (each !== null) joiner.add(each);
  return joiner.rows;
}

function expectRows(rows: RoutedRows | null, start: number, end: number): void {
  expect(rows).toMatchObject({ start, count: end - start });
  for (let position = start; position < end; position++) expect([...rowAt(rows!, position)!]).toEqual(row(position));
  const all = Array.from({ length: end - start }, (_, i) => row(start + i)).flat();
  expect([...toArray(rows!, 0xff)]).toEqual(all);
}

describe('row joiner', () => {
  test('one piece passes through untouched', () => {
    const whole = paged(3, 11);
    expect(joined([null, whole, null])).toBe(whole);
    expectRows(joined([whole]), 3, 11);
    expect(joined([null, null])).toBeNull();
  });

  test.each([
    ['pages, then rows one by one', [paged(0, 6), piece(6, 7), piece(7, 8), piece(8, 9)], 0, 9],
    ['pages from a prompt start on', [paged(5, 6), piece(6, 9)], 5, 9],
    ['pieces without pages', [piece(2, 5), piece(5, 6), piece(6, 200)], 2, 200],
    ['a piece over many pages', [paged(0, 2), piece(2, 40), piece(40, 41)], 0, 41],
    ['empty pieces', [paged(0, 5), piece(5, 5), piece(5, 6)], 0, 6],
  ] as const)('%s', (_name, pieces, start, end) => {
    const rows = joined(pieces);
    expect(rows!.missing).toEqual([]);
    expectRows(rows, start, end);
  });

  test('a page that was cut to its rows is filled up in a copy', () => {
    const cut = { ...paged(0, 6), chunks: [Uint8Array.of(0, 0, 1, 2, 2, 4, 3, 6), Uint8Array.of(4, 8, 5, 10)] };
    expectRows(joined([cut, piece(6, 8)]), 0, 8);
    expect(cut.chunks[1]).toEqual(Uint8Array.of(4, 8, 5, 10));
  });

  test('what lies between pieces, and what a piece misses, is missing', () => {
    const rows = joined([paged(0, 4), piece(6, 9, [[6, 7]]), piece(9, 10)])!;
    expect(rows.missing).toEqual([[4, 7]]);
    expect(countPresent(rows)).toBe(7);
    expect(rowAt(rows, 5)).toBeNull();
    expect([...rowAt(rows, 8)!]).toEqual(row(8));
  });

  test('a row twice is an error', () => {
    const joiner = new RowJoiner();
    joiner.add(piece(0, 4));
    expect(() => joiner.add(piece(3, 5))).toThrow(/rows from 3 on were handed out after rows up to 4/);
  });
});
