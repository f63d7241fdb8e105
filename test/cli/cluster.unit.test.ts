/** The command `cluster`: its tables, its campaign, and what it says beside a bench. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { measuredCosts } from '../../src/cli/bench/report/measured-costs.ts';
import type { BenchResult } from '../../src/cli/bench/bench.ts';
import { runCell, slowestOf } from '../../src/cli/cluster/cluster-figures.ts';
import { cellsOf, type ClusterFlags } from '../../src/cli/cluster/cluster-flags.ts';
import { clusterKind } from '../../src/cli/cluster/cluster-kind.ts';
import { renderClusters } from '../../src/cli/cluster/cluster-report.ts';
import { runHere } from './run-cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'cluster-test-'));
afterAll(() => rmSync(folder, { recursive: true }));

const FLAGS: ClusterFlags = {
  model: 'tiny',
  design: ['deltas'],
  optIn: 1,
  concurrency: 2,
  gap: 0,
  promptLength: { from: 4, to: 8 },
  outputLength: { from: 4, to: 8 },
  queueDepth: 2,
  maxNumBatchedTokens: 32,
  duration: 100_000,
  shmSave: true,
  shmRead: true,
  lock: 'engine',
  dispatch: 'modular',
  realRanks: 'first',
  collectiveTimeout: 60,
  fault: [],
  seed: 0,
  jobs: 1,
  patience: 600,
};
const NOTHING_GIVEN = (): boolean => false;

describe('clusters that flags ask for', () => {
  test('the RFC’s set-up, and what is given goes before it', () => {
    const { cells } = cellsOf({ ...FLAGS, preset: 'rfc' }, NOTHING_GIVEN);
    expect(cells[0]).toMatchObject({ numEngines: 2, tensorParallel: 8, numNodes: 2, model: 'gpt-oss-120b' });
    const own = cellsOf({ ...FLAGS, preset: 'rfc' }, (flag) => flag === 'model');
    expect(own.cells[0]!.model).toBe('tiny');
  });

  test('nodes of at most eight ranks, unless a number is given', () => {
    const sizes = [
      [2, 8, 2],
      [4, 2, 1],
      [3, 4, 3],
      [128, 8, 128],
    ] as const;
    for (const [dataParallel, tensorParallel, nodes] of sizes) {
      const { cells } = cellsOf({ ...FLAGS, dataParallel, tensorParallel }, NOTHING_GIVEN);
      expect(cells[0]!.numNodes).toBe(nodes);
    }
  });

  test('ranks that engines do not divide are refused', () => {
    const flags = { ...FLAGS, tensorParallel: 8, scale: [16, 12] };
    expect(() => cellsOf(flags, NOTHING_GIVEN)).toThrow(
      /--scale is 12; give numbers of ranks that 8, the ranks of an engine .* divides/,
    );
  });

  test('five experiments: without the save or the read every row is missing, and no law broken', () => {
    const { cells, mode } = cellsOf({ ...FLAGS, tensorParallel: 2, experiments: true }, NOTHING_GIVEN);
    const figures = cells.map(runCell);
    expect(figures.map(({ broken }) => broken)).toEqual([null, null, null, null, null]);
    expect(figures.map(({ counts }) => counts.rowsDelivered > 0)).toEqual([false, true, false, false, false]);
    const text = renderClusters({ mode, figures, seconds: null, flags: {} });
    expect(text).toMatch(/flag on .* none +~20 s\nsave off .* ~20 s\nread off .* ~60 s\nboth off/);
  });
});

test('of each pass the slowest rank counts, and beside it what draws from all passes would give', () => {
  const { single, slowest, drawn } = slowestOf([{ ownMs: [1, 3] }, { ownMs: [2, 2] }]);
  expect(single).toMatchObject({ mean: 2, p50: 2, max: 3 });
  expect(slowest.mean).toBe(2.5);
  // The larger of two draws from 1, 2, 2, 3: 1 once in 16, 2 in 8, 3 in 7.
  expect(drawn.mean).toBeCloseTo((1 * 1 + 2 * 8 + 3 * 7) / 16);
});

test('a shard’s result goes through JSON and comes back the same', () => {
  const { mode, cells } = cellsOf({ ...FLAGS, seeds: 2 }, NOTHING_GIVEN);
  const series = clusterKind.seriesOf({ kind: 'cluster', mode, cells });
  expect(series[0]!.tasks).toHaveLength(2);
  const tasks = JSON.parse(JSON.stringify(series[0]!.tasks)) as typeof cells;
  const [first, again] = [runCell(cells[0]!), runCell(tasks[0]!)];
  expect(JSON.parse(JSON.stringify(first))).toEqual(JSON.parse(JSON.stringify(again)));
  expect(first.hash).not.toBe(runCell(tasks[1]!).hash);
});

describe('on the command line', () => {
  const SMALL = ['cluster', '--model', 'tiny', '--tensor-parallel', '2', '--concurrency', '2', '--duration', '100ms'];

  test('prints a cluster, and writes a line of CSV for each', async () => {
    const file = join(folder, 'scale.csv');
    const { code, stdout } = await runHere(...SMALL, '--scale', '2,4', '--csv', file, '--jobs', '1');
    expect(stdout).toMatch(/every time is modelled .* TP 2 .*tiny/);
    expect(stdout).toMatch(/every law kept; event log [0-9a-f]{16}, in/);
    expect(code).toBe(0);
    const lines = readFileSync(file, 'utf8').trim().split('\r\n');
    expect(lines.map((line) => line.split(',')[6])).toEqual(['ranks', '2', '4']);
  });

  test('a broken law ends with 1 and its story, a group that stands still with 2 and its report', async () => {
    const broken = await runHere(...SMALL, '--design', 'mutant/one-too-many', '--jobs', '1');
    expect(broken.stdout).toMatch(/L\d broken \(wrong\), engine \d: [^]*joins[^]*1 of 1 clusters broke a law/);
    expect(broken.code).toBe(1);
    const dead = await runHere(...SMALL, '--fault', 'dead-rank:1@50ms', '--collective-timeout', '1', '--jobs', '1');
    expect(dead.stdout).toContain('TIME-OUT at 1.0');
    expect(dead.stdout).toContain('for rank 1\n  rank 1 (engine 0, tensor rank 1)');
    expect(dead.code).toBe(2);
  });

  test('what cannot run ends with 2, and says what to do', async () => {
    const wrong = [
      [['--fault', 'dead-rank:9@1ms'], /--fault is dead-rank:9@1ms; give a rank below 4/],
      [['--duration', '10'], /Give a time as 10s or 500ms/],
      [['--output-length', '9-3'], /Give FROM-TO with 1 ≤ FROM ≤ TO/],
      [['--costs', join(folder, 'none.json')], /none\.json: ENOENT/],
      [['--against', 'bench.json'], /'--against <files>' cannot be used with option '--tensor-parallel/],
    ] as const;
    for (const [flags, message] of wrong) {
      const { code, stderr } = await runHere(...SMALL, ...flags);
      expect(stderr).toMatch(message);
      expect(code).toBe(2);
    }
  });
});

describe('beside a bench', () => {
  const engine = {
    blockSize: 4,
    numBlocks: 64,
    maxNumSeqs: 2,
    maxNumBatchedTokens: 32,
    maxModelLen: 32,
    policy: 'fcfs',
    asyncScheduling: true,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: true,
    watermark: 0,
    numSpeculativeTokens: 0,
  };
  /** A bench whose passes take 5 ms + 100 µs a token, and a rest of 0 to 400 µs. */
  const tokens = [1, 2, 4, 8, 16];
  const stepMs = tokens.map((count, i) => 5 + 0.1 * count + 0.1 * i);
  const passes = { stepMs, waitMs: tokens.map(() => 0), numTokens: tokens, numLast: 5 };
  const bench = (numRanks: number): object => ({
    options: {
      session: {
        engine,
        numRanks,
        queueDepth: 2,
        model: { name: 'tiny', numLayers: 2, topK: 2, numExperts: 8 },
        clockTimes: { stepMs: 5, perTokenUs: 100, copyLatencyMs: 0.05, copyGBPerS: 20 },
      },
      dataParallel: { size: 1, dispatch: 'modular' },
      mode: { kind: 'closed', concurrency: 2 },
    },
    environment: { cpu: 'a CPU', numCpus: 2, node: 'v1', commit: null, device: 'clock' },
    runs: [{ cell: { design: 'off' }, served: { ranks: [passes], schedulerMs: 2, requestSteps: 100 } }],
  });

  test('costs come from passes of one rank alone: what a clock says, and the rest as it was measured', () => {
    const costs = measuredCosts(bench(1) as BenchResult)!;
    expect(costs).toMatchObject({ readLatencyUs: 50, readGBPerS: 20, enginePerRequestUs: 10 });
    expect(costs.pass).toMatchObject({ fixedUs: 5000, perTokenUs: 100 });
    expect(costs.pass.restUs.filter((_, i) => i % 25 === 0).map(Math.round)).toEqual([0, 100, 200, 300, 400]);
    expect(measuredCosts(bench(2) as BenchResult)).toBeNull();
  });

  test('virtual ranks serve the same requests, and stand beside the real ones with the error', async () => {
    const requests = [1, 2, 3, 4].map((id) => ({ prompt: [id, 2, 3], maxTokens: 6 }));
    const ranks = [{ rank: 0, stepMs: { p50: 5.5, p99: 6, max: 6 }, waitMs: { p50: 0, p99: 0, max: 0 }, lastShare: 1 }];
    const cells = [{ design: 'off', optInShare: 0, tokensPerSecond: 360, ranks }];
    const costs = measuredCosts(bench(1) as BenchResult);
    const file = join(folder, 'sweep.json');
    const results = [1, 2].map((n) => ({ ...bench(n), requests, cells, costs: n === 1 ? costs : null }));
    writeFileSync(file, JSON.stringify({ results }));
    const { code, stdout } = await runHere('cluster', '--against', file, '--json');
    expect(code).toBe(0);
    const { compared } = JSON.parse(stdout) as { compared: { ranks: number; tokensPerSecond: { error: number } }[] };
    expect(compared.map((row) => row.ranks)).toEqual([1, 2]);
    for (const { tokensPerSecond } of compared) expect(Math.abs(tokensPerSecond.error)).toBeLessThan(0.1);
    writeFileSync(file, JSON.stringify(results[1]));
    expect((await runHere('cluster', '--against', file)).stderr).toContain('a bench of one rank among them');
  });
});
