// Rows as files: whole ones alone have their name, and say what the answers said, and which step computed each row.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetReadObjects } from 'hyparquet';
import { expect, onTestFinished, test } from 'vitest';
import { routedRows } from '../../../src/capture/routed-rows.ts';
import { RowsFiles } from '../../../src/rows/files/rows-files.ts';
import type { RowsRecord } from '../../../src/rows/files/rows-record.ts';
import { expectOracle, post, startServer } from '../helpers.ts';

type Row = Readonly<{
  request_id: string;
  finish_reason: string;
  weight_version: string;
  num_prompt_tokens: number;
  token_ids: number[];
  start: number;
  count: number;
  num_layers: number;
  top_k: number;
  dtype: string;
  rows: Uint8Array;
  missing: number[];
  step: number[];
}>;

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'rows-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  return path;
}

async function rowsIn(path: string): Promise<Row[]> {
  const names = readdirSync(path).filter((name) => name.endsWith('.parquet'));
  const files = names.map((name) => new Uint8Array(readFileSync(join(path, name))).buffer);
  const read = await Promise.all(files.map((file) => parquetReadObjects({ file, utf8: false })));
  return read.flat() as unknown as Row[];
}

test('a server’s files have the tokens and rows of its answers, and their steps', async () => {
  const path = directory();
  const server = await startServer({ saveRows: path });
  const prompt = Array.from({ length: 20 }, (_, i) => (i * 11) % 97);
  const xargs = { return_routed_experts: true, routed_experts_prompt_start: 3 };
  const body = { prompt, max_tokens: 5, ignore_eos: true, request_id: 'first', vllm_xargs: xargs };
  expect((await post(server, '/v1/completions', body)).status).toBe(200);
  await post(server, '/v1/completions', { ...body, request_id: 'again' });
  await post(server, '/v1/completions', { prompt, max_tokens: 2 });
  expect(readdirSync(path).every((name) => name.endsWith('.part'))).toBe(true);
  await server.close(0);
  expect(readdirSync(path)).toEqual([expect.stringMatching(/^rows-.*\.parquet$/)]);
  const saved = await rowsIn(path);
  expect(saved.map(({ request_id: id }) => id)).toEqual(['cmpl-first', 'cmpl-again']);
  for (const row of saved) {
    expect(row).toMatchObject({ weight_version: 'default', finish_reason: 'length', dtype: 'uint8', missing: [] });
    expect([row.num_prompt_tokens, row.start, row.count]).toEqual([20, 3, 21]);
    const shape = [row.count, row.num_layers, row.top_k];
    expectOracle(prompt, row.token_ids.slice(20), { shape, ids: [...row.rows] }, 3);
    expect(row.step.length).toBe(21);
    // Each token of the output is an input of a step of its own.
    expect(new Set(row.step.slice(-4)).size).toBe(4);
  }
  const [first, again] = saved as [Row, Row];
  expect(new Set(first.step.slice(0, 17))).toEqual(new Set([first.step[0]]));
  // What the second found cached is the first one's work.
  expect(again.step[0]).toBe(-1);
  expect(again.step[16]).toBeGreaterThan(first.step.at(-1)!);
});

const record = (i: number): RowsRecord => ({
  requestId: `r${i}`,
  tokenIds: [1, 2, 3],
  numPromptTokens: 1,
  rows: routedRows({ numLayers: 2, topK: 2, dtype: 'uint16' }, 0, 2, {
    chunks: [Uint16Array.from([i, 300, 2, 3, 9, 9, 9, 9])],
    missing: [[1, 2]],
  }),
  finishReason: 'abort',
  weightVersion: '3',
  steps: [i],
});

test('files end at their size, what breaks off has no name, and rows that are missing are named', async () => {
  const path = directory();
  const files = new RowsFiles({ directory: path, name: 'x', groupBytes: 1, fileBytes: 1500 });
  for (let i = 0; i < 12; i++) await files.add(record(i));
  const abandoned = readdirSync(path);
  expect(abandoned.filter((name) => name.endsWith('.parquet')).length).toBeGreaterThan(1);
  expect(abandoned.filter((name) => name.endsWith('.part')).length).toBeLessThanOrEqual(1);
  await files.close();
  const rows = await rowsIn(path);
  expect(rows.map(({ request_id: id }) => id).toSorted()).toEqual(
    Array.from({ length: 12 }, (_, i) => `r${i}`).toSorted(),
  );
  const one = rows.find(({ request_id: id }) => id === 'r7')!;
  expect(new Uint16Array(one.rows.slice().buffer)).toEqual(
    Uint16Array.of(7, 300, 2, 3, 65_535, 65_535, 65_535, 65_535),
  );
  expect([one.missing, one.step, one.weight_version]).toEqual([[1, 2], [7, -1], '3']);
  const others = new RowsFiles({ directory: path, name: 'x', groupBytes: 1 });
  await others.add(record(12));
  await others.close();
  expect((await rowsIn(path)).length).toBe(13);
  expect(() => new RowsFiles({ directory: '/dev/null/x', name: 'x' })).toThrow(/dev\/null/);
});
