// Rows put into an answer by the proxy: into missing ranges only, in every form; what neither server has stays missing,
// and what cannot be read is an error and never a guess (L4, L9).

import { describe, expect, test } from 'vitest';
import { routedRows } from '../../src/capture/routed-rows.ts';
import type { PositionRange, RoutedRows } from '../../src/contract/routed-rows.ts';
import { Splicer } from '../../src/serve/proxy/splice.ts';
import { splicedEvents, splicedJson } from '../../src/serve/proxy/spliced-answer.ts';
import { readRows } from '../../src/rows/read-rows.ts';
import type { RowFormat } from '../../src/rows/row-formats.ts';
import { rowFormats, rowMembers } from '../../src/rows/row-formats.ts';

const L = 3;
const K = 2;
const WIDTH = L * K;

/** Row p of server `tag` is `tag + p` in all its entries. */
function rowsOf(
  tag: number,
  start: number,
  count: number,
  missing: readonly PositionRange[],
  wide = false,
): RoutedRows {
  const entries = Array.from({ length: count * WIDTH }, (_, i) => tag + start + Math.floor(i / WIDTH));
  const chunk = wide ? Uint16Array.from(entries) : Uint8Array.from(entries);
  for (const [from, to] of missing) chunk.fill(77, (from - start) * WIDTH, (to - start) * WIDTH);
  const form = { numLayers: L, topK: K, dtype: wide ? 'uint16' : 'uint8' } as const;
  return routedRows(form, start, start + count, { chunks: [chunk], missing });
}

function choiceOf(format: RowFormat, rows: RoutedRows, numExperts: number): Record<string, unknown> {
  const members = [...rowMembers(format, rows, numExperts)].map(([key, parts]) => `"${key}":${[...parts].join('')}`);
  return JSON.parse(`{"index":0,"text":"x",${members.join(',')}}`) as Record<string, unknown>;
}

/** The tag of each row, −1 = missing. */
function tagsOf(format: RowFormat, choice: Record<string, unknown>, start: number): number[] {
  const { rows } = readRows(format, choice, { start, rowShape: { numLayers: L, topK: K } });
  const chunk = rows.chunks[0]!;
  return Array.from({ length: rows.count }, (_, i) => {
    const isMissing = rows.missing.some(([from, to]) => start + i >= from && start + i < to);
    if (isMissing) return -1;
    const row = chunk.subarray(i * WIDTH, (i + 1) * WIDTH);
    expect(new Set(row).size).toBe(1);
    return row[0]! - start - i;
  });
}

const parse = (parts: Iterable<string>): Record<string, unknown> =>
  JSON.parse([...parts].join('')) as Record<string, unknown>;

describe.each(rowFormats.filter((name) => name !== 'signed'))('%s', (format) => {
  const prefilled = rowsOf(100, 2, 8, []);

  test('missing rows are put in, others stay, and what the first server lacks stays missing', () => {
    const splicer = Splicer.from(choiceOf(format, prefilled, 200), { format, start: 2, numPromptTokens: 10 });
    const decoded = rowsOf(50, 2, 12, [
      [2, 4],
      [5, 9],
      [11, 13],
    ]);
    const choice = parse(splicer.choice(choiceOf(format, decoded, 200)));
    expect(choice).toMatchObject({ index: 0, text: 'x', routed_experts_missing: [[11, 13]] });
    expect(tagsOf(format, choice, 2)).toEqual([100, 100, 50, 100, 100, 100, 100, 50, 50, -1, -1, 50]);
    expect(splicer.counts).toEqual({ numSpliced: 6, numMissing: 2 });
    // Whole: byte for byte what an encoder writes that never missed one.
    const whole = parse(splicer.choice(choiceOf(format, rowsOf(50, 2, 12, [[3, 9]]), 200)));
    const mixed = rowsOf(50, 2, 12, []);
    (mixed.chunks[0] as Uint8Array).set((prefilled.chunks[0] as Uint8Array).subarray(WIDTH, 7 * WIDTH), WIDTH);
    expect(whole).toEqual(choiceOf(format, mixed, 200));
  });

  test('rows that the first server declares missing are not put in', () => {
    const holed = rowsOf(100, 0, 9, [
      [0, 2],
      [5, 6],
    ]);
    const splicer = Splicer.from(choiceOf(format, holed, 200), { format, start: 0, numPromptTokens: 9 });
    const choice = parse(splicer.choice(choiceOf(format, rowsOf(50, 0, 12, [[1, 8]]), 200)));
    expect(choice['routed_experts_missing']).toEqual([
      [1, 2],
      [5, 6],
    ]);
    expect(tagsOf(format, choice, 0)).toEqual([50, -1, 100, 100, 100, -1, 100, 100, 50, 50, 50, 50]);
  });

  test('256 experts, where a missing row widens a byte', () => {
    const splicer = Splicer.from(choiceOf(format, rowsOf(250, 0, 4, []), 256), {
      format,
      start: 0,
      numPromptTokens: 4,
    });
    const choice = parse(splicer.choice(choiceOf(format, rowsOf(200, 0, 6, [[0, 3]]), 256)));
    expect(tagsOf(format, choice, 0)).toEqual([250, 250, 250, 200, 200, 200]);
    const mixed = rowsOf(200, 0, 6, []);
    (mixed.chunks[0] as Uint8Array).set(rowsOf(250, 0, 3, []).chunks[0] as Uint8Array);
    expect(choice).toEqual(choiceOf(format, mixed, 256));
    const partly = parse(splicer.choice(choiceOf(format, rowsOf(200, 0, 6, [[0, 6]]), 256)));
    expect(tagsOf(format, partly, 0)).toEqual([250, 250, 250, 250, -1, -1]);
  });

  test('512 experts', () => {
    const splicer = Splicer.from(choiceOf(format, rowsOf(400, 0, 4, [], true), 512), {
      format,
      start: 0,
      numPromptTokens: 4,
    });
    const choice = parse(splicer.choice(choiceOf(format, rowsOf(300, 0, 6, [[1, 3]], true), 512)));
    expect(tagsOf(format, choice, 0)).toEqual([300, 400, 400, 300, 300, 300]);
  });

  test('an answer as one object, and as events cut at every byte', async () => {
    const decoded = choiceOf(format, rowsOf(50, 2, 9, [[2, 9]]), 200);
    const object = { id: 'é', choices: [decoded, { index: 1, text: 'no rows' }], usage: null };
    const splicer = Splicer.from(choiceOf(format, prefilled, 200), { format, start: 2, numPromptTokens: 10 });
    const bytes = Buffer.from(JSON.stringify(object));
    const whole = JSON.parse(await join(await splicedJson(cut(bytes, 7), splicer))) as typeof object;
    expect(whole).toMatchObject({ id: 'é', choices: [{ routed_experts_missing: [] }, { index: 1, text: 'no rows' }] });
    const plain = 'data: {"choices":[{"text":"é"}]}\n\n';
    const events = `${plain}data: ${JSON.stringify(object)}\n\n${plain}data: [DONE]\n\n`;
    const spliced = await join(await splicedJson(cut(bytes, 1e9), splicer));
    const expected = `${plain}data: ${spliced}\n\n${plain}data: [DONE]\n\n`;
    for (const size of [1, 2, 3, 10, 1e6]) {
      expect(await join(splicedEvents(cut(Buffer.from(events), size), splicer))).toBe(expected);
    }
  });

  test('what cannot be read is an error', async () => {
    const good = choiceOf(format, prefilled, 200);
    const splicer = Splicer.from(good, { format, start: 2, numPromptTokens: 10 });
    const bad: readonly Record<string, unknown>[] = [
      { index: 0 },
      { ...good, routed_experts_missing: undefined },
      { ...good, routed_experts_missing: [[1, 5]] },
      { ...good, routed_experts_missing: [[5, 4]] },
      { ...good, routed_experts_missing: [[3, 99]] },
      { ...good, routed_experts_missing: ['x'] },
      { ...good, routed_experts: 'nonsense', meta_info: { routed_experts: 5 } },
      { ...good, routed_experts: { data: 'AAAA', shape: [7, 7, 7], dtype: 'uint8' }, meta_info: null },
      { ...good, routed_experts: 'nrlre1:int8:9x9x9:AAAA', meta_info: { routed_experts: 'AAAA' } },
    ];
    for (const choice of bad) expect(() => splicer.choice(choice)).toThrow(/^(?:no rows in the form "\w+": )?its? /);
    await expect(splicedJson(cut(Buffer.from('{"choices":'), 5), splicer)).rejects.toThrow();
    await expect(splicedJson(cut(Buffer.from('{"choices":5}'), 5), splicer)).rejects.toThrow(/no choices/);
    await expect(splicedJson(broken(), splicer)).rejects.toThrow(/cut off/);
  });
});

async function* cut(bytes: Buffer, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function* broken(): AsyncGenerator<Uint8Array> {
  yield Buffer.from('{"choices":[');
  throw new Error('cut off');
}

async function join(parts: AsyncIterable<string>): Promise<string> {
  let text = '';
  for await (const part of parts) text += part;
  return text;
}
