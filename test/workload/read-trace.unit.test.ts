/** A trace file is recognised by extension or content; every way in which a file can be wrong is one clear error. */

import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readTrace } from '../../src/workload/traces/read-trace.ts';
import { workloadTotals } from '../../src/workload/workload.ts';
import { commonPrefix, userError } from './helpers.ts';

const OPTIONS = { seed: 0, vocabSize: 201_088 };
const MOONCAKE = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}\n';
const AZURE = 'TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n';

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'routed-experts-trace-'));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

function write(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

test.each([
  ['a.jsonl', MOONCAKE, 600],
  ['a.csv', AZURE, 374],
  ['A.CSV', AZURE, 374],
  ['mooncake', MOONCAKE, 600],
  ['azure.txt', AZURE, 374],
])('%s is recognised and named after its file', (name, content, promptTokens) => {
  const workload = readTrace(write(name, content), OPTIONS);
  expect(workload.name).toBe(name);
  expect(workloadTotals(workload).promptTokens).toBe(promptTokens);
});

test.each([
  ['empty.jsonl', '', 'BAD_FILE', 'the file is empty'],
  ['blank.csv', '\n \n', 'BAD_FILE', 'the file is empty'],
  ['header.csv', AZURE.split('\n')[0]!, 'BAD_FILE', 'the trace has no requests'],
  ['prose.txt', 'hello\nworld', 'BAD_FILE', 'neither a Mooncake trace (JSONL) nor an Azure trace (CSV)'],
  ['wrong.jsonl', AZURE, 'BAD_TRACE_LINE', 'not JSON: "TIMESTAMP,ContextTokens,GeneratedTokens"'],
  ['WRONG.JSONL', 'hello', 'BAD_TRACE_LINE', 'not JSON: "hello"'],
])('%s is refused', (name, content, code, problem) => {
  const path = write(name, content);
  const place = code === 'BAD_TRACE_LINE' ? `${path}:1` : path;
  expect(userError(() => readTrace(path, OPTIONS))).toBe(`${code} ${place}: ${problem}`);
});

test('a missing file and a folder are refused', () => {
  const missing = join(folder, 'missing.jsonl');
  expect(userError(() => readTrace(missing, OPTIONS))).toBe(`BAD_FILE ${missing}: no such file`);
  expect(userError(() => readTrace(folder, OPTIONS))).toBe(`BAD_FILE ${folder}: is a directory, not a file`);
});

test('options are checked before the file is opened', () => {
  expect(userError(() => readTrace('missing', { ...OPTIONS, requests: -1 }))).toMatch(/^BAD_VALUE requests is -1/u);
});

const shared = join(import.meta.dirname, '../../../shared/traces');
const mooncakePath = join(shared, 'mooncake-conversation-3000.jsonl');
const azurePath = join(shared, 'azure-2023-conv-5000.csv');
const hasTraces = existsSync(mooncakePath) && existsSync(azurePath);
if (!hasTraces) console.warn('SKIPPED: the real traces are not in ../shared/traces');

describe.skipIf(!hasTraces)('real traces', () => {
  test('Mooncake, 200 requests scaled by 16: lengths, arrivals and sharing', () => {
    const workload = readTrace(mooncakePath, { ...OPTIONS, requests: 200, scaleLengths: 16 });
    expect(workloadTotals(workload)).toMatchObject({ numRequests: 200, promptTokens: 173_891, outputTokens: 4476 });
    const [first, second] = workload.requests;
    expect(first!.promptTokenIds.length).toBe(Math.round(6758 / 16));
    // Both open with block 0 and differ from there.
    expect(commonPrefix(first!.promptTokenIds, second!.promptTokenIds)).toBe(512 / 16);
  });

  test('Mooncake, all 3,000 requests', () => {
    const workload = readTrace(mooncakePath, { ...OPTIONS, scaleLengths: 64, speedup: 10 });
    expect(workload.requests).toHaveLength(3000);
    expect(workload.requests.at(-1)!.arrivalMs).toBe(98_700);
  });

  test('Azure, all requests', () => {
    const workload = readTrace(azurePath, { ...OPTIONS, scaleLengths: 8 });
    expect(workload.requests).toHaveLength(4999);
    expect(workload.requests.at(-1)!.arrivalMs).toBeCloseTo(1_023_123.22, 2);
  });
});
