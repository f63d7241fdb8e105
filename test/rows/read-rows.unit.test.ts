// What is written is read again, in every form: the same ids, the same missing rows. What is not of the form is an
// error that names the form and what is wrong (L4).

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import { decodeBase64, decodePlainly, encodeBase64, encodePlainly } from '../../src/rows/base64.ts';
import { compareRows } from '../../src/rows/compare-rows.ts';
import type { JsonObject } from '../../src/rows/json-object.ts';
import { readRows } from '../../src/rows/read-rows.ts';
import type { RowFormat } from '../../src/rows/row-formats.ts';
import { rowFormats, rowMembers } from '../../src/rows/row-formats.ts';
import { arbitraryRows } from './arbitrary-rows.ts';

function choiceOf(format: RowFormat, rows: RoutedRows, numExperts: number): JsonObject {
  const members = [...rowMembers(format, rows, numExperts)].map(([key, parts]) => `"${key}":${[...parts].join('')}`);
  return JSON.parse(`{${members.join(',')}}`) as JsonObject;
}

const small: RoutedRows = {
  start: 3,
  count: 4,
  numLayers: 2,
  topK: 2,
  dtype: 'uint8',
  rowsPerChunk: 4,
  chunkOrigin: 3,
  chunks: [Uint8Array.from({ length: 16 }, (_, i) => i)],
  missing: [[4, 6]],
};

const UNORDERED = [
  [5, 6],
  [3, 4],
];

describe.each(rowFormats)('%s', (format) => {
  test('random rows come back, and written once more they are the same', () => {
    const check = fc.property(arbitraryRows, ({ rows, numExperts }) => {
      const { start, numLayers, topK } = rows;
      const choice = choiceOf(format, rows, numExperts);
      const read = readRows(format, choice, { start, rowShape: { numLayers, topK } });
      expect(compareRows(rows, read.rows)).toEqual({
        numCompared: rows.count - rows.missing.reduce((sum, [from, to]) => sum + to - from, 0),
        numDifferent: 0,
        first: null,
        onlyLeft: [],
        onlyRight: [],
      });
      const isPlain = numLayers === rows.layers?.length && rows.layers.every((layer, i) => layer === i);
      const layers = rows.layers === undefined || isPlain ? {} : { layers: rows.layers };
      expect(read.rows).toMatchObject({ start, count: rows.count, missing: rows.missing, numLayers, ...layers });
      expect(read.numExperts).toBeGreaterThanOrEqual(numExperts);
      expect(choiceOf(format, read.rows, read.numExperts)).toEqual(choice);
    });
    fc.assert(check, { numRuns: 200 });
  });

  test.each<readonly [string, (choice: JsonObject) => JsonObject]>([
    ['no rows', () => ({})],
    ['rows of a wrong type', () => ({ routed_experts: 7, meta_info: { routed_experts: 7 } })],
    ['missing rows that are no list', (choice) => ({ ...choice, routed_experts_missing: 3 })],
    ['missing rows out of order', (choice) => ({ ...choice, routed_experts_missing: UNORDERED })],
    ['missing rows outside', (choice) => ({ ...choice, routed_experts_missing: [[6, 8]] })],
    ['text cut off', (choice) => changed(choice, (text) => text.slice(0, -3))],
    ['a byte too few', (choice) => changed(choice, (text) => text.slice(0, -4))],
    ['a character that is not base64', (choice) => changed(choice, (text) => `${text.slice(0, -8)}!${text.slice(-7)}`)],
  ])('%s: an error with its code and the form', (_, change) => {
    const choice = change(choiceOf(format, small, 16));
    const read = (): unknown => readRows(format, choice, { start: 3, rowShape: { numLayers: 2, topK: 2 }, numRows: 4 });
    expect(read).toThrow(expect.objectContaining({ code: 'BAD_ROWS', message: expect.stringContaining(format) }));
  });

  test.each([
    ['no list', 3],
    ['none', []],
    ['out of order', [1, 0]],
    ['too many', [0, 1, 2]],
    ['more than there are columns', [2]],
    ['one of which the ids of a dense layer contradict', [1]],
  ])('layers, %s: an error', (_, layers) => {
    const choice = { ...choiceOf(format, small, 16), routed_experts_layers: layers };
    const read = (): unknown => readRows(format, choice, { start: 3, rowShape: { numLayers: 2, topK: 2 } });
    expect(read).toThrow(expect.objectContaining({ code: 'BAD_ROWS', message: expect.stringContaining('layer') }));
  });

  test('another shape, start or number of rows than the caller’s is an error', () => {
    const choice = choiceOf(format, small, 16);
    const code = expect.objectContaining({ code: 'BAD_ROWS' }) as Error;
    expect(() => readRows(format, choice, { rowShape: { numLayers: 3, topK: 2 } })).toThrow(code);
    expect(() => readRows(format, choice, { rowShape: { numLayers: 2, topK: 2 }, numRows: 5 })).toThrow(code);
    if (format === 'object') expect(() => readRows(format, choice, { start: 4 })).toThrow(code);
  });
});

/** The base64 of a choice in any form, changed. */
function changed(choice: JsonObject, change: (text: string) => string): JsonObject {
  return JSON.parse(JSON.stringify(choice), (key, value: unknown) =>
    (key === 'routed_experts' || key === 'data') && typeof value === 'string' ? change(value) : value,
  ) as JsonObject;
}

test('of a server that declares nothing, rows of −1 are missing where ids have a sign', () => {
  for (const format of ['sglang', 'nrlre1'] as const) {
    const { routed_experts_missing: _, ...choice } = choiceOf(format, small, 16);
    const { rows } = readRows(format, choice, { start: 3, rowShape: { numLayers: 2, topK: 2 } });
    expect([format, rows.missing]).toEqual([format, [[4, 6]]]);
  }
});

test('the form says where its rows start, if nobody else does', () => {
  expect(readRows('object', choiceOf('object', small, 16)).rows.start).toBe(3);
  expect(readRows('nrlre1', choiceOf('nrlre1', { ...small, missing: [] }, 16)).rows.start).toBe(0);
});

test('the form without a shape wants one', () => {
  const choice = choiceOf('sglang', { ...small, missing: [] }, 16);
  expect(() => readRows('sglang', choice)).toThrow(/rowShape/);
  expect(readRows('sglang', choice, { numRows: 4 }).rows).toMatchObject({ count: 4, numLayers: 1, topK: 4 });
});

test('base64 is the same with Node and without', () => {
  const check = fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(20_000), (bytes, zeros) => {
    const all = new Uint8Array(bytes.length + zeros);
    all.set(bytes, zeros);
    const text = encodeBase64(all);
    expect(encodePlainly(all)).toBe(text);
    expect(decodeBase64(text)).toEqual(all);
    expect(decodePlainly(text)).toEqual(all);
  });
  fc.assert(check, { numRuns: 50 });
  for (const bad of ['A', 'AAAAA', 'A===', 'AA!A']) {
    expect([bad, decodeBase64(bad), decodePlainly(bad)]).toEqual([bad, null, null]);
  }
});
