// Rows are left out of an answer only where the client has just these: of an earlier choice, or by their digest.

import { crc32 } from 'node:zlib';
import { expect, test } from 'vitest';
import { routedRows } from '../../../src/capture/routed-rows.ts';
import type { PositionRange, RoutedRows } from '../../../src/contract/routed-rows.ts';
import { CLIENTS_ROWS } from '../../../src/rows/packed/packed-layout.ts';
import { Generation, type Choice } from '../../../src/serve/answer/generation.ts';
import { sharedPrefix } from '../../../src/serve/answer/shared-prefix.ts';

/** Rows of one id, which is `p` at position p, in chunks of four. */
function rowsOf(count: number, changed: readonly number[] = [], missing: readonly PositionRange[] = []): RoutedRows {
  const ids = Uint8Array.from({ length: count }, (_, p) => (changed.includes(p) ? 200 : p));
  const chunks = Array.from({ length: Math.ceil(count / 4) }, (_, i) => ids.subarray(4 * i, 4 * i + 4));
  return routedRows({ numLayers: 1, topK: 1, dtype: 'uint8' }, 0, count, { chunks, rowsPerChunk: 4, missing });
}

function choicesOf(...rows: readonly RoutedRows[]): readonly Choice[] {
  const promptTokenIds = new Uint32Array(10);
  const { choices } = new Generation(rows.map((_, i) => ({ requestId: `r${i}`, promptTokenIds })));
  for (const [i, choice] of choices.entries()) choice.rows = rows[i]!;
  return choices;
}

const withLayers = (rows: RoutedRows): RoutedRows => rows;
const prefixOf = (second: RoutedRows): unknown => {
  const choices = choicesOf(rowsOf(14), second);
  return sharedPrefix({ choice: choices[1]!, rows: second, known: null, choices, withLayers });
};

test('the rows of the prompt are those of the first choice, as far as they are equal and there', () => {
  expect(prefixOf(rowsOf(14))).toEqual({ end: 10, choice: 0 });
  expect(prefixOf(rowsOf(14, [12]))).toEqual({ end: 10, choice: 0 });
  expect(prefixOf(rowsOf(14, [6]))).toEqual({ end: 4, choice: 0 });
  expect(prefixOf(rowsOf(14, [0]))).toBe(undefined);
  expect(prefixOf(rowsOf(14, [], [[5, 6]]))).toEqual({ end: 5, choice: 0 });
});

test('rows that the client has are told by their digest', () => {
  const rows = rowsOf(14);
  const choices = choicesOf(rows);
  const known = { end: 6, crc32: crc32(Uint8Array.of(0, 1, 2, 3, 4, 5)) };
  const given = (changes: object): unknown =>
    sharedPrefix({ choice: choices[0]!, rows, known: { ...known, ...changes }, choices, withLayers });
  expect(given({})).toEqual({ end: 6, choice: CLIENTS_ROWS });
  expect(given({ end: 7 })).toBe(undefined);
  expect(given({ end: 0 })).toBe(undefined);
  expect(given({ end: 15 })).toBe(undefined);
});
