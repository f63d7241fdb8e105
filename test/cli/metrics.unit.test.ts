// Metrics are defined once: table, legend, help and CSV show the same ones, and no line is wider than a terminal.

import { parse } from 'csv-parse/sync';
import { describe, expect, test } from 'vitest';
import { designNames } from '../../src/capture/designs.ts';
import { cellName, planCells } from '../../src/cli/bench/plan.ts';
import type { CellReport } from '../../src/cli/bench/report/cell-report.ts';
import type { RankReport, Spread } from '../../src/cli/bench/report/rank-report.ts';
import { toCsv } from '../../src/cli/bench/report/csv.ts';
import { METRICS } from '../../src/cli/bench/report/metrics.ts';
import { legend, metricsHelp, metricsTable, TERMINAL_COLUMNS, wrapped } from '../../src/cli/bench/report/terminal.ts';

const cells = planCells(designNames, [0, 0.1, 1]);

const ratio: CellReport['ratioToOff'] = {
  median: 0.999,
  min: 0.9,
  max: 1.1,
  low: 0.986,
  high: 1.012,
  halfWidth: 0.0129,
  verdict: 'no difference seen',
  pairs: 12,
  endedBy: 'time budget',
};

function report(fields: Partial<CellReport>): CellReport {
  return {
    design: 'deltas',
    optInShare: 1,
    tokensPerSecond: 1870.123456789,
    ratioToOff: ratio,
    ttftMs: { p50: 105.2, p99: 412.7 },
    itlMs: { p50: 10.1, p99: 46.12 },
    cpuUsPerToken: { main: 61.4, workers: 182.2 },
    gcPauses: { main: { count: 3.5, longestMs: 4 }, workers: { count: 1, longestMs: 2 } },
    stepMs: { p50: 10, p99: 46 },
    schedulerUsPerRequestStep: 0.98,
    longestStallMs: { median: 98.7, max: 170 },
    longestEngineStepMs: { median: 1, max: 2 },
    bytesDeviceToHost: 1e6,
    bytesDeviceToHostForCapture: 145 * 2 ** 20,
    bytesAcrossThreads: 5,
    preemptions: 0,
    prefixQueryTokens: 1,
    prefixHitTokens: 2,
    prefixRecomputedTokens: 3,
    offload: null,
    rowBytesPeak: { device: 9220, inFlight: 8192, cached: null, requests: 12_345_678 },
    ranks: null,
    drafts: { tokens: 0, accepted: 0 },
    rows: { delivered: 9725, verified: 9725, mismatched: 0, missing: 40_400 },
    requests: { submitted: 64, finished: 64, aborted: 0, refused: 0, lost: 0 },
    ...fields,
  };
}

/** Of the default designs and shares, each with the same figures. */
function table(fields: Partial<CellReport>, comparesRates: boolean = true): string[] {
  const rows = cells.map((cell) => ({ label: cellName(cell), cell: report({ ...fields, ...cell }) }));
  return metricsTable('design, opted in', rows, { comparesRates }).split('\n');
}

function widest(lines: readonly string[]): number {
  return Math.max(...lines.map((line) => line.length));
}

const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ');

const read = (text: string): Record<string, string>[] => parse(text, { columns: true });

describe('the table', () => {
  test.each<[string, Partial<CellReport>]>([
    ['usual figures, the longest verdict', {}],
    [
      'large figures, the longest verdict',
      {
        ttftMs: { p50: 9999, p99: 123_456 },
        itlMs: { p50: 9, p99: 9999 },
        cpuUsPerToken: { main: 1234, workers: 9999 },
        longestStallMs: { median: 12_345, max: 12_345 },
        rows: { delivered: 1e8, verified: 1e8, mismatched: 99_999, missing: 12_345_678 },
      },
    ],
    ['unknown figures', { ttftMs: { p50: NaN, p99: NaN }, cpuUsPerToken: { main: null, workers: null } }],
  ])('%s: no line is wider than 100 columns', (_name, fields) => {
    const lines = table(fields);
    expect(widest(lines)).toBeLessThanOrEqual(TERMINAL_COLUMNS);
    expect(lines).toHaveLength(2 + 1 + cells.length);
    expect(lines.at(-1)).toMatch(/^block-store 100 % +1\.00 ± 0\.02 no difference seen\* /);
  });

  test('its figures, each under its head', () => {
    const lines = table({});
    const row = lines.find((line) => line.startsWith('deltas 10 %'))!;
    expect(row.split(/ {2,}/)).toEqual([
      'deltas 10 %',
      '1.00 ± 0.02 no difference seen*',
      '105/413',
      '46.1',
      '61+182',
      '98.7',
      '145',
      '0/40400',
    ]);
    const heads = lines.slice(0, 2).map((line) => line.trim().split(/ {2,}/));
    expect(heads).toEqual([
      ['design, opted in', 'vs off', 'TTFT ms', 'ITL ms', 'CPU µs', 'stall', 'D→H', 'wrong/'],
      ['p50/p99', 'p99', '/token', 'ms', 'MiB', 'missing'],
    ]);
  });

  test('off, and every design in an open loop, has its rate where the others have a ratio', () => {
    expect(table({})[3]).toMatch(/^off +1870 tokens\/s /);
    expect(table({}, false).filter((line) => line.includes('1870 tokens/s'))).toHaveLength(cells.length);
  });

  test('nothing read back is 0, and no read back is too small to be seen', () => {
    expect(table({ bytesDeviceToHostForCapture: 0 }).at(-1)).toMatch(/ 0 +0\/40400$/);
    expect(table({ bytesDeviceToHostForCapture: 4 }).at(-1)).toMatch(/ 0\.001 +0\/40400$/);
  });
});

describe('legend and help', () => {
  test('no line is wider than 100 columns', () => {
    expect(widest(legend().split('\n'))).toBeLessThanOrEqual(TERMINAL_COLUMNS);
    expect(widest(metricsHelp().split('\n'))).toBeLessThanOrEqual(TERMINAL_COLUMNS);
    const long = wrapped('word '.repeat(60), '    ').split('\n');
    expect(widest(long)).toBeLessThanOrEqual(TERMINAL_COLUMNS);
    expect(long.slice(1).every((line) => line.startsWith('    word'))).toBe(true);
  });

  test('the help defines every metric, the legend those of the table, in the same words', () => {
    for (const { name, meaning, column, csv } of METRICS) {
      expect(oneLine(metricsHelp())).toContain(oneLine(meaning));
      for (const title of Object.keys(csv)) expect(metricsHelp()).toContain(title);
      expect(oneLine(legend()).includes(`${name}: ${oneLine(meaning)}`)).toBe(column !== undefined);
    }
  });
});

function spread(p50: number): Spread {
  return { p50, p99: 4 * p50, max: 9 * p50 };
}

function rank(number: number, wait: number, lastShare: number): RankReport {
  return { rank: number, stepMs: spread(10), waitMs: spread(wait), lastShare };
}

describe('CSV', () => {
  test('a line for each cell, with a name and a unit for each column', () => {
    const text = toCsv(cells.map((cell) => ({ before: [], cell: report(cell) })));
    const rows = read(text);
    expect(rows.map(({ design, opted_in_share }) => [design, Number(opted_in_share)])).toEqual(
      cells.map(({ design, optInShare }) => [design, optInShare]),
    );
    expect(rows[4]).toMatchObject({
      tokens_per_s: '1870.12',
      ratio_half_width: '0.0129',
      verdict: 'no difference seen',
      ttft_p99_ms: '412.7',
      cpu_workers_us_per_token: '182.2',
      gc_main_pauses: '3.5',
      rows_requests_peak_bytes: '12345678',
      rows_cached_peak_bytes: '',
    });
    const names = Object.keys(rows[0]!);
    expect(text.split('\r\n')).toHaveLength(cells.length + 2);
    expect(text.split('\r\n')[0]!.split(',')).toHaveLength(names.length);
  });

  test('of ranks in lockstep the longest wait and the straggler; nothing of others', () => {
    const ranks = [rank(0, 2, 0.2), rank(1, 0.1, 0.7), rank(2, 3, 0.1)];
    const rows = [report({ ranks }), report({})].map((cell) => ({ before: [], cell }));
    expect(read(toCsv(rows))).toMatchObject([
      { rank_wait_p50_ms: '3', rank_wait_p99_ms: '12', straggler_rank: '1', straggler_share: '0.7' },
      { rank_wait_p50_ms: '', rank_wait_p99_ms: '', straggler_rank: '', straggler_share: '' },
    ]);
  });

  test('what RFC 4180 wants quoted is quoted; what is not a number is empty', () => {
    const design = 'a "b", c\r\nd';
    const nothing = { p50: Number.NaN, p99: Number.NaN };
    const text = toCsv([{ before: ['36x4'], cell: report({ design, ttftMs: nothing }) }], ['layers_x_k']);
    expect(read(text)).toMatchObject([{ layers_x_k: '36x4', design, ttft_p50_ms: '' }]);
  });
});
