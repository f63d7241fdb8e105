// Rows come out of every file form as they went in, what a form does not carry is unknown, and what is broken is named
// with file, place and rule.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import { openRows } from '../../src/rows/files/open-rows.ts';
import type { ReadRowsHints } from '../../src/rows/files/rows-hints.ts';
import { npyHeader } from '../../src/rows/forms/npy.ts';
import type { RowFormat } from '../../src/rows/row-formats.ts';
import { rowFormats, rowMembers } from '../../src/rows/row-formats.ts';
// Written by NumPy and pyarrow.
import written from './row-files.json' with { type: 'json' };

/** What every file here holds: six rows of two layers, top 2. */
const IDS = Uint8Array.from({ length: 24 }, (_, i) => i % 8);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'row-files-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, content: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

/** Any type goes into such a header as the two that are written. */
function npy(descr: string, shape: readonly number[], data: Uint8Array): string {
  const header = npyHeader(descr as '|u1', shape);
  return file(`${descr.replace(/\W/g, '')}-${shape.join('x')}.npy`, Buffer.concat([header, data]));
}

type Found = Readonly<{ ids: number[]; starts: number[]; steps: number[] }>;

async function read(path: string, hints: ReadRowsHints = {}): Promise<Found> {
  const { source } = await openRows([path], hints);
  const found: Found = { ids: [], starts: [], steps: [] };
  const width = source.shape.numLayers * source.shape.topK;
  for await (const { ids, numRows, startsRequest, endsStep } of source.batches()) {
    if (startsRequest) found.starts.push(found.ids.length / width);
    found.ids.push(...ids.subarray(0, numRows * width));
    if (endsStep) found.steps.push(found.ids.length / width);
  }
  return found;
}

describe('arrays', () => {
  test.each([
    ['|u1', Uint8Array.from(IDS)],
    ['|i1', Uint8Array.from(IDS)],
    ['<u2', new Uint8Array(Uint16Array.from(IDS).buffer)],
    ['<i4', new Uint8Array(Int32Array.from(IDS).buffer)],
    ['<i8', new Uint8Array(BigInt64Array.from(IDS, BigInt).buffer)],
  ])('of %s', async (descr, data) => {
    expect(await read(npy(descr, [6, 2, 2], data))).toEqual({ ids: [...IDS], starts: [0], steps: [] });
  });

  test('of four dimensions know their requests', async () => {
    const path = npy('|u1', [2, 3, 2, 2], IDS);
    expect((await read(path)).starts).toEqual([0, 3]);
    expect((await openRows([path])).source.knows.requests).toBe(true);
  });

  test('of two dimensions are one layer, or as many as the caller says', async () => {
    const path = npy('|u1', [6, 4], IDS);
    expect((await openRows([path])).source.shape).toMatchObject({ numLayers: 1, topK: 4 });
    const hints = { rowShape: { numLayers: 2, topK: 2 } };
    expect((await openRows([path], hints)).source.shape).toMatchObject({ numLayers: 2, topK: 2 });
  });

  test.each(Object.entries(written))('%s', async (name, base64) => {
    const path = file('written', Buffer.from(base64, 'base64'));
    const { ids, starts } = await read(path);
    expect(ids).toEqual([...IDS]);
    expect(starts).toEqual(name.includes('of rows') ? [0] : [0, 3]);
  });
});

function route(layer: number, token: number, ids: readonly number[]): string {
  return JSON.stringify({
    type: 'route',
    req_id: 'r1',
    token_idx: token,
    layer,
    topk_ids: ids,
    topk_weights: [0.5, 0.5],
  });
}

describe('text', () => {
  const rows: RoutedRows = {
    start: 0,
    count: 6,
    numLayers: 2,
    topK: 2,
    dtype: 'uint8',
    rowsPerChunk: 6,
    chunks: [IDS],
    missing: [[2, 3]],
  };
  const withGap = [...IDS.slice(0, 8), -1, -1, -1, -1, ...IDS.slice(12)];

  /** SkyRL knows no missing rows. */
  const rowsOf = (format: RowFormat): RoutedRows => (format === 'signed' ? { ...rows, missing: [] } : rows);

  function choice(format: RowFormat): string {
    return [...rowMembers(format, rowsOf(format), 8)]
      .map(([key, parts]) => `"${key}":${[...parts].join('')}`)
      .join(',');
  }

  test.each(rowFormats)('answers in the form %s, one and one a line', async (format) => {
    const hints = { rowShape: { numLayers: 2, topK: 2 } };
    const answer = `{"choices":[{${choice(format)}}]}`;
    const wanted = rowsOf(format) === rows ? withGap : [...IDS];
    expect((await read(file('answer.json', answer), hints)).ids).toEqual(wanted);
    const lines = await read(file('answers.jsonl', `${answer}\n${answer}\n`), hints);
    expect(lines).toEqual({ ids: [...wanted, ...wanted], starts: [0, 6], steps: [] });
  });

  test('a log of routes: a pass ends where the token index falls back, layers are put side by side', async () => {
    const passes = [
      [route(3, 0, [1, 2]), route(3, 1, [3, 4]), route(7, 0, [5, 6]), route(7, 1, [7, 0])],
      [route(3, 0, [2, 1]), route(7, 0, [6, 5])],
    ];
    const meta = '{"type":"meta","top_k":2,"layers_logged":[3,7]}';
    const path = file('log.jsonl', [meta, ...passes.flat()].join('\n'));
    expect(await read(path)).toEqual({ ids: [1, 2, 5, 6, 3, 4, 7, 0, 2, 1, 6, 5], starts: [0], steps: [2, 3] });
    const { source } = await openRows([path]);
    expect(source.shape.layers).toEqual([3, 7]);
    expect(source.knows).toEqual({ requests: false, promptLengths: false, steps: true, tokens: false });
  });

  test('a capture: what it does not carry is unknown', async () => {
    const flat = Array.from({ length: 6 }, (_, row) => [...IDS.subarray(row * 4, row * 4 + 4)]);
    const shape = { numExperts: 8, topK: 2, layers: [0, 5] };
    const path = file('capture.json', JSON.stringify({ ...shape, rows: flat, stepLengths: [4, 2] }, null, 1));
    const { source, capture } = await openRows([path]);
    expect(source.knows).toEqual({ requests: false, promptLengths: false, steps: true, tokens: false });
    expect(capture!.steps).toEqual([[[0, 4]], [[4, 2]]]);
    expect((await read(path)).ids).toEqual([...IDS]);
  });
});

describe('refused', () => {
  const cases: readonly (readonly [what: string, make: () => string, message: RegExp])[] = [
    ['a directory', () => folder, /is a directory/],
    ['a file that is not there', () => join(folder, 'none'), /none: no such file/],
    ['an empty file', () => file('empty.npy', ''), /is empty/],
    ['a pickle', () => file('dump.pkl', Uint8Array.of(0x80, 4, 1)), /is a pickle: reading it can run code.*python -c/],
    ['an array cut short', () => npy('|u1', [7, 2, 2], IDS), /truncated: it ends at byte 152, its header promises 156/],
    ['an array that goes on', () => npy('|u1', [5, 2, 2], IDS), /goes on behind its rows, at byte 148/],
    ['an array of floats', () => npy('<f4', [6, 2, 2], new Uint8Array(96)), /dtype <f4.*astype/],
    ['an array of objects', () => npy('|O', [6, 2, 2], IDS), /pickled objects/],
    ['an array without rows', () => npy('|u1', [0, 2, 2], new Uint8Array()), /no rows in it/],
    ['an array of one dimension', () => npy('|u1', [24], IDS), /rows are \[T, L, K\]/],
    ['text that is not JSON', () => file('bad.json', '{"a":'), /bad.json: is not JSON/],
    ['a line that is not JSON', () => file('bad.jsonl', '{"type":"route"}\n{"type'), /bad.jsonl:1: has no layer/],
    ['JSON without rows', () => file('other.json', '{"a":1}'), /no rows of a known form/],
    ['SGLang rows without a shape', () => file('sg.json', SGLANG), /sg.json:1: .*give --layers and --top-k/],
    ['lines of two shapes', () => file('two.jsonl', TWO_SHAPES), /mixes shapes: line 2, answer 0 is 1 × 1/],
    ['an id beyond the experts', () => file('id.json', BEYOND), /row 1, layer 5: id 9 of 8 experts/],
  ];
  const SGLANG = '{"meta_info":{"routed_experts":"AAAAAA=="}}';
  const TWO_SHAPES = '{"routed_experts":"nrlre1:int8:1x2x1:AAE="}\n{"routed_experts":"nrlre1:int8:1x1x1:AA=="}';
  const BEYOND = '{"numExperts":8,"topK":2,"layers":[5],"rows":[[0,1],[2,9]]}';

  test.each(cases)('%s', async (_what, make, message) => {
    await expect(read(make())).rejects.toThrow(message);
  });

  test('files of two shapes', async () => {
    mkdirSync(join(folder, 'two'), { recursive: true });
    const paths = [npy('|u1', [6, 2, 2], IDS), npy('|u1', [12, 1, 2], IDS)];
    await expect(openRows(paths)).rejects.toThrow(/mixes shapes: its rows are 1 × 2, those of .* are 2 × 2/);
  });
});
