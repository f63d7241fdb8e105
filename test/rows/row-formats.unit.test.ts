// Each wire form is read by a decoder written from its consumer's description; a missing row is never a routing (L4).

import { describe, expect, test } from 'vitest';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import { npyHeader } from '../../src/rows/forms/npy.ts';
import type { RowFormat } from '../../src/rows/row-formats.ts';
import { rowFormats, rowMembers } from '../../src/rows/row-formats.ts';
import { PIECE_BYTES } from '../../src/rows/row-pieces.ts';
import type { DecodedRows } from '../serve/helpers.ts';
import {
  decodeLists,
  decodeNpy,
  decodeNrlre1,
  decodeObject,
  decodePacked,
  decodeSglang,
  decodeSigned,
} from '../serve/helpers.ts';

const LAYERS = 3;
const TOP_K = 2;
const WIDTH = LAYERS * TOP_K;

type Case = Readonly<{
  start: number;
  count: number;
  numExperts: number;
  rowsPerChunk?: number;
  missing?: RoutedRows['missing'];
}>;

const idAt = (position: number, entry: number, numExperts: number): number =>
  (position * 7 + entry * 3 + 1) % numExperts;

/** Rows in chunks of a few positions; what is missing holds an id that must not be seen. */
function makeRows({ start, count, numExperts, rowsPerChunk = 4, missing = [] }: Case): RoutedRows {
  const isWide = numExperts > 256;
  const end = start + count;
  const chunks = Array.from({ length: Math.ceil(end / rowsPerChunk) }, (_, c) => {
    if ((c + 1) * rowsPerChunk <= start) return null;
    const ids = isWide ? new Uint16Array(rowsPerChunk * WIDTH) : new Uint8Array(rowsPerChunk * WIDTH);
    for (let i = 0; i < ids.length; i++) ids[i] = idAt(c * rowsPerChunk + Math.floor(i / WIDTH), i % WIDTH, numExperts);
    return ids;
  });
  return {
    start,
    count,
    numLayers: LAYERS,
    topK: TOP_K,
    dtype: isWide ? 'uint16' : 'uint8',
    rowsPerChunk,
    chunks,
    missing,
  };
}

function decode(format: RowFormat, given: Case): DecodedRows & { missing: unknown } {
  const members = [...rowMembers(format, makeRows(given), given.numExperts)].map(
    ([key, parts]) => `"${key}":${[...parts].join('')}`,
  );
  const json = JSON.parse(`{${members.join(',')}}`);
  const rows = {
    npy: () => decodeNpy(json.routed_experts),
    sglang: () => decodeSglang(json.meta_info, LAYERS, TOP_K),
    object: () => {
      expect(json.routed_experts.start).toBe(given.start);
      return decodeObject(json.routed_experts);
    },
    nrlre1: () => decodeNrlre1(json.routed_experts),
    signed: () => decodeSigned(json.routed_experts),
    lists: () => decodeLists(json.routed_experts),
    packed: () => decodePacked(Buffer.from(json.routed_experts, 'base64')),
  }[format]();
  return { ...rows, missing: json.routed_experts_missing };
}

const pieceRows = Math.ceil(PIECE_BYTES / WIDTH);
const cases: readonly (readonly [string, Case])[] = [
  ['a few rows', { start: 0, count: 10, numExperts: 8 }],
  ['no rows', { start: 3, count: 0, numExperts: 8 }],
  ['rows from the middle of a chunk', { start: 6, count: 9, numExperts: 128 }],
  ['129 experts', { start: 1, count: 8, numExperts: 129 }],
  ['256 experts', { start: 0, count: 50, numExperts: 256 }],
  ['384 experts', { start: 2, count: 80, numExperts: 384 }],
  [
    'rows missing in front, in the middle, at the end',
    {
      start: 2,
      count: 20,
      numExperts: 8,
      missing: [
        [2, 5],
        [9, 10],
        [15, 22],
      ],
    },
  ],
  ['all rows missing', { start: 0, count: 5, numExperts: 8, missing: [[0, 5]] }],
  ['256 experts and a row missing', { start: 0, count: 9, numExperts: 256, missing: [[4, 5]] }],
  ['exactly a piece', { start: 0, count: pieceRows, numExperts: 8, rowsPerChunk: 16 }],
  ['several pieces', { start: 5, count: pieceRows + 1, numExperts: 384, rowsPerChunk: 16, missing: [[7, 5000]] }],
];

describe.each(rowFormats)('%s', (format) => {
  const sayable = cases.filter(([, { missing = [] }]) => format !== 'signed' || missing.length === 0);
  test.each(sayable)('%s', (_, given) => {
    const { start, count, numExperts, missing = [] } = given;
    const rows = decode(format, given);
    if (format !== 'lists' || count > 0) expect(rows.shape).toEqual([count, LAYERS, TOP_K]);
    expect(rows.missing).toEqual(missing);
    const wrong: number[] = [];
    for (let row = 0; row < count; row++) {
      const position = start + row;
      const isMissing = missing.some(([from, to]) => position >= from && position < to);
      for (let entry = 0; entry < WIDTH; entry++) {
        const id = rows.ids[row * WIDTH + entry]!;
        const isRouting = id >= 0 && id < numExperts;
        if (isMissing ? isRouting : id !== idAt(position, entry, numExperts)) wrong.push(position);
      }
    }
    expect(wrong).toEqual([]);
  });
});

test.each([
  // Made with numpy 2.4.6: np.lib.format.write_array_header_1_0.
  ['|u1', [3, 2, 2], "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 2, 2), }"],
  ['<u2', [12345, 36, 4], "{'descr': '<u2', 'fortran_order': False, 'shape': (12345, 36, 4), }"],
  ['|u1', [999999999, 48, 8], "{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 48, 8), }"],
] as const)('the .npy header of %s %j is NumPy’s, byte for byte', (descr, shape, text) => {
  expect(Buffer.from(npyHeader(descr, shape)).toString('latin1')).toBe(
    `\u{93}NUMPY\u{1}\u{0}v\u{0}${text.padEnd(117)}\n`,
  );
});

const rowsOf = (ids: readonly number[]): RoutedRows => ({
  start: 0,
  count: ids.length / WIDTH,
  numLayers: LAYERS,
  topK: TOP_K,
  dtype: 'uint16',
  rowsPerChunk: ids.length / WIDTH,
  chunks: [Uint16Array.from(ids)],
  missing: [],
});
const text = (format: RowFormat, rows: RoutedRows): string =>
  [...rowMembers(format, rows, 50_000)].map(([key, parts]) => `"${key}":${[...parts].join('')}`).join();

describe('forms for one reader', () => {
  test.each([
    [255, 'uint8', 'uint8'],
    [256, 'int16', 'uint16'],
    [32_767, 'int16', 'uint16'],
    [32_768, 'int32', 'uint16'],
  ])('a largest id of %i: %s for SkyRL, %s for prime-rl, whatever the model has', (largest, signed, unsigned) => {
    const rows = rowsOf([1, 2, 3, 4, 5, largest]);
    expect(JSON.parse(`{${text('signed', rows)}}`).routed_experts.dtype).toBe(signed);
    expect(JSON.parse(`{${text('object', rows)}}`).routed_experts.dtype).toBe(unsigned);
  });

  test('the text of an object begins with its data, as a reader cuts it out', () => {
    expect(text('object', rowsOf([1, 2, 3, 4, 5, 6]))).toMatch(/^"routed_experts":\{"data":"[^"]+","shape":\[1,3,2\]/);
  });

  test('what a form cannot say is an error that names the form', () => {
    const rows: RoutedRows = { ...rowsOf([1, 2, 3, 4, 5, 6]), missing: [[0, 1]] };
    expect(() => text('signed', rows)).toThrow(
      expect.objectContaining({ code: 'ROWS_MISSING', message: expect.stringContaining('"signed"') as string }),
    );
  });
});
