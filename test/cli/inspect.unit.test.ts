// The commands over rows: what they print, and how they end. Rows that say nothing of passes or experts get no made-up
// answer, and wrong usage names the value, the limit and what to do.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { InspectionReport } from '../../src/analysis/inspection.ts';
import { npyHeader } from '../../src/rows/forms/npy.ts';
import { randomOf, randomRowSet } from '../analysis/disturbed.ts';
import { runHere } from './run-cli.ts';

const SHAPE = { numLayers: 3, topK: 2, numExperts: 16, lengths: [200] };

let folder: string;
let rows: string;
let shifted: string;
let loads: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'inspect-'));
  const [request] = randomRowSet(SHAPE, randomOf(5)).requests;
  const ids = Uint8Array.from(request!.ids);
  const header = npyHeader('|u1', [200, 3, 2]);
  rows = written('rows.npy', Buffer.concat([header, ids]));
  const moved = Buffer.concat([ids.subarray(0, 600), ids.subarray(594, 1194)]);
  shifted = written('shifted.npy', Buffer.concat([header, moved]));
  loads = written('loads.json', JSON.stringify({ weight: [[5, 1, 1, 1, 9, 1, 2, 4]] }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function written(name: string, content: Uint8Array | string): string {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
}

describe('inspect', () => {
  test('says what the form does not carry, and judges no placement without passes', async () => {
    const flags = ['--experts', '16', '--ep', '4', '--redundant', '4', '--json'];
    const { code, stdout } = await runHere('inspect', rows, ...flags);
    const report = JSON.parse(stdout) as InspectionReport;
    expect(code).toBe(0);
    expect(report.rows).toEqual({ read: 200, counted: 200, requests: null, passes: null });
    expect(report.unknown).toEqual(['layers', 'requests', 'promptLengths', 'steps', 'tokens']);
    expect(report.steps).toBeNull();
    expect(report.placement!.screening).toBeNull();
    expect(JSON.parse(stdout)).toHaveProperty('definitions.cvSample');
  });

  test('takes passes from the caller: loads per rank and pass, and a verdict', async () => {
    const flags = ['--experts', '16', '--ep', '4', '--redundant', '4', '--passes', '10', '--window', '5'];
    const { code, stdout } = await runHere('inspect', rows, ...flags);
    expect(code).toBe(0);
    expect(stdout).toContain('4 ranks, expert e on rank ⌊e·G/E⌋, 20 passes of 10.000 rows');
    expect(stdout).toMatch(/would it have helped\? (not worth it|too little data)/);
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(140);
  });

  test('prints a line a layer as CSV', async () => {
    const { stdout } = await runHere('inspect', rows, '--csv');
    const [head, ...lines] = stdout
      .trim()
      .split('\n')
      .map((line) => line.split(','));
    expect(lines).toHaveLength(3);
    expect(head).toContain('cvSample');
    expect(lines.map((line) => line[head!.indexOf('total')])).toEqual(['400', '400', '400']);
  });

  test.each([
    [['--ep', '4'], /--experts is missing/],
    [['--experts', '16', '--ep', '3'], /--ep is 3; give a divisor of the 16 experts/],
    [['--experts', '16', '--ep', '4', '--redundant', '3'], /--redundant is 3; give a multiple of the 4 ranks/],
    [['--experts', '8'], /rows.npy: byte \d+: id \d+, ids are below 8/],
    [['--layers', '3'], /--top-k is missing/],
    [['--passes', 'positions'], /requests are unknown here/],
  ])('%o ends with exit code 2', async (flags, message) => {
    const { code, stderr } = await runHere('inspect', rows, ...flags);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });

  test('verify tells a recording that differs, and ends with exit code 1', async () => {
    const golden = {
      cases: [{ name: 'one', weight: [[1, 2]], numReplicas: 2, numGroups: 1, numNodes: 1, numGpus: 1 }],
    };
    const directory = mkdtempSync(join(folder, 'golden-'));
    const wrong = { ...golden.cases[0], physicalToLogical: [[0, 1]], gpuLoads: [[3]], logicalCount: [[1, 1]] };
    writeFileSync(
      join(directory, 'right.json'),
      JSON.stringify({ cases: [{ ...wrong, physicalToLogical: [[1, 0]] }] }),
    );
    writeFileSync(join(directory, 'wrong.json'), JSON.stringify({ cases: [wrong] }));
    const { code, stdout } = await runHere('inspect', 'verify', directory);
    expect(stdout).toContain('ok   right.json: placements, 1 cases\nFAIL wrong.json');
    expect(stdout.trim().split('\n').at(-1)).toBe('1 passed, 1 failed');
    expect(code).toBe(1);
  });
});

describe('compare', () => {
  test('the same rows: exit code 0', async () => {
    const { code, stdout } = await runHere('compare', rows, rows);
    expect(stdout.split('\n')[0]).toBe('B is A, id for id (identical)');
    expect(code).toBe(0);
  });

  test('rows that are shifted: in words, with the position, and exit code 1', async () => {
    const { code, stdout } = await runHere('compare', rows, shifted);
    expect(stdout.split('\n')[0]).toMatch(/^B is A shifted by one row from position 100 on: .* \(shifted-rows\)$/);
    expect(stdout).toContain('rule "exact": broken');
    expect(code).toBe(1);
    expect((await runHere('compare', rows, join(folder, 'none.npy'))).code).toBe(2);
  });
});

describe('placement', () => {
  const flags = ['--replicas', '10', '--gpus', '2'];

  test('prints the maps and loads as JSON', async () => {
    const { code, stdout } = await runHere('placement', loads, ...flags, '--json');
    const { physicalToLogical, logicalToPhysical, logicalCount, gpuLoads } = JSON.parse(stdout) as Record<
      string,
      number[][]
    >;
    expect(code).toBe(0);
    expect(physicalToLogical![0]).toHaveLength(10);
    expect(logicalCount).toEqual([[2, 1, 1, 1, 2, 1, 1, 1]]);
    expect(logicalToPhysical![0]![1]).toEqual([physicalToLogical![0]!.indexOf(1), -1]);
    expect(gpuLoads![0]!.reduce((sum, load) => sum + load, 0)).toBe(24);
  });

  test('writes a map file, with a line for each dense layer where the engine wants it', async () => {
    const out = join(folder, 'map.json');
    const map = ['--form', 'sglang', '--first-layer', '2', '--out', out];
    expect((await runHere('placement', loads, ...flags, ...map)).code).toBe(0);
    const { physical_to_logical_map: lines } = JSON.parse(readFileSync(out, 'utf8')) as Record<string, number[][]>;
    expect(lines).toHaveLength(3);
    expect(lines![0]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 0, 1]);
    const again = await runHere('placement', loads, ...flags, '--form', 'vllm', '--old', out);
    expect(again.stderr).toContain('3 layers of 10 slots, not 1 of 10');
  });

  test.each([
    [['--replicas', '9', '--gpus', '2'], /numReplicas is 9; give a multiple of the 2 GPUs/],
    [['--replicas', '6', '--gpus', '2'], /numReplicas is 6; give at least 8/],
  ])('%o ends with exit code 2', async (wrong, message) => {
    const { code, stderr } = await runHere('placement', loads, ...wrong);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});
