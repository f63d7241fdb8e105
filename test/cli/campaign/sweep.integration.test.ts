/**
 * A sweep as a campaign: each value is measured whole, in a process of its own, and the cells, requests and verified
 * rows are those of one run, wherever the values were measured. Figures carry the machine that measured them.
 */

import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SweepReport, SweptReport } from '../../../src/cli/bench/report/sweep-report.ts';
import { sweepKind, type SweepDescription } from '../../../src/cli/bench/sweep/sweep-kind.ts';
import type { SweepTask } from '../../../src/cli/bench/sweep/swept-bench.ts';
import { openValueProcesses } from '../../../src/cli/bench/sweep/value-processes.ts';
import { runHere, type Ended } from '../run-cli.ts';

const SERVED = ['--device', 'cpu', '--model', 'tiny', '--workload', 'fixed', '--prompt-length', '8', '--requests', '3'];
const MEASURED = [...SERVED, '--design', './own.ts', '--opt-in', '0,1', '--repeats', '1', '--ballast-ms', '0'];
const SWEEP = [...MEASURED, '--sweep', 'queue-depth=1,2'];

const folder = mkdtempSync(join(tmpdir(), 'routed-experts-sweep-'));
const startFolder = process.cwd();
const partFile = (i: number): string => join(folder, `part-${i}.jsonl`);
const changed = (file: string, change: (text: string) => string): string => {
  const copy = join(folder, 'changed.jsonl');
  writeFileSync(copy, change(readFileSync(file, 'utf8')));
  return copy;
};
/** The first part with its value a second time, and that changed. */
const twice = (change: (line: string) => string): string =>
  changed(partFile(1), (text) => `${text}${change(text.split('\n')[1]!)}\n`);

/** What does not depend on the machine. */
function servedIn({ results }: SweepReport): unknown {
  return results.map((report) => sweepKind.repeatablePart!(report));
}

let alone: SweepReport;
let parts: Ended[];

beforeAll(async () => {
  copyFileSync(join(startFolder, 'examples', 'designs', 'overlay.ts'), join(folder, 'own.ts'));
  process.chdir(folder);
  const one = await runHere('bench', ...SWEEP, '--json', 'one.json');
  expect(one.code, one.stderr).toBe(0);
  alone = JSON.parse(readFileSync('one.json', 'utf8')) as SweepReport;
  parts = [];
  for (const i of [1, 2]) {
    parts.push(await runHere('bench', ...SWEEP, '--shard', `${i}/2`, '--part', partFile(i)));
  }
}, 120_000);

afterAll(() => {
  process.chdir(startFolder);
  rmSync(folder, { recursive: true, force: true });
});

function firstTask(): SweepTask {
  const { description } = JSON.parse(readFileSync(partFile(1), 'utf8').split('\n')[0]!) as {
    description: SweepDescription;
  };
  return sweepKind.seriesOf(description)[0]!.tasks[0]!;
}

async function mergedReport(...files: readonly string[]): Promise<SweepReport> {
  const { code, stdout, stderr } = await runHere('merge', ...files, '--json');
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as SweepReport;
}

test('merged parts have the cells, requests and verified rows of one run', async () => {
  for (const { code, stderr } of parts) expect(code, stderr).toBe(0);
  const merged = await mergedReport(partFile(2), partFile(1));
  expect(merged.results.map(({ value }) => value)).toEqual(['1', '2']);
  expect(servedIn(merged)).toEqual(servedIn(alone));
  const [first] = merged.results as [SweptReport];
  expect(first.cells.map(({ design, optInShare }) => [design, optInShare])).toEqual([
    ['off', 0],
    ['overlay', 0],
    ['overlay', 1],
  ]);
  expect(first.cells[2]!.rows).toEqual(alone.results[0]!.cells[2]!.rows);
  expect(first.cells[2]!.rows.verified).toBeGreaterThan(0);
  expect(first.environment.command).toBe('routed-experts bench --sweep queue-depth=1');
});

test('lines of two machines say so, and none is compared with the other', async () => {
  const elsewhere = changed(partFile(2), (text) => text.replace(/"host":"[^"]*"/, '"host":"elsewhere"'));
  const { stdout, code } = await runHere('merge', partFile(1), elsewhere, '--csv', 'merged.csv');
  expect(code).toBe(0);
  expect(stdout).toContain('values were measured on several machines');
  expect(stdout).toMatch(/machine 2: elsewhere, .*cpu/);
  expect(stdout).toMatch(/^ {2}2 \(machine 2\)/m);
  const [head, ...lines] = readFileSync('merged.csv', 'utf8').trim().split('\r\n');
  expect(head).toMatch(/^queue_depth,host,design,/);
  expect(lines.map((line) => line.split(',')[1])).toEqual([
    ...Array.from({ length: 3 }, () => alone.results[0]!.environment.host),
    ...Array.from({ length: 3 }, () => 'elsewhere'),
  ]);
});

test('a value that was measured twice counts once, and both times must have served the same', async () => {
  const slower = twice((line) => line.replace('"tokensPerSecond":', '"tokensPerSecond":9'));
  expect(await mergedReport(slower, partFile(2))).toEqual(await mergedReport(partFile(1), partFile(2)));
  const other = twice((line) => line.replaceAll('"rowsDelivered":', '"rowsDelivered":9'));
  const { code, stderr } = await runHere('merge', other, partFile(2));
  expect(stderr).toContain('shard 0 ran twice and has two results');
  expect(code).toBe(2);
});

test('a wrong row of any part is the exit code of the merged sweep', async () => {
  const wrong = changed(partFile(1), (text) => text.replace('"problems":[]', '"problems":["1 rows differ"]'));
  const { code, stdout } = await runHere('merge', wrong, partFile(2));
  expect(stdout).toContain('queue-depth 1: PROBLEM 1 rows differ');
  expect(code).toBe(1);
});

test('a campaign goes on by its id alone, and measures what is missing', async () => {
  const kept = join(folder, 'out', 'campaigns', 'mine.jsonl');
  const begun = readFileSync(partFile(1), 'utf8').replace(
    '"share":{"index":0,"count":2}',
    '"share":{"index":0,"count":1}',
  );
  mkdirSync(join(folder, 'out', 'campaigns'), { recursive: true });
  writeFileSync(kept, begun);
  const { code, stderr } = await runHere('bench', '--campaign', 'mine', '--json', 'resumed.json');
  expect(code, stderr).toBe(0);
  expect(readFileSync(kept, 'utf8').startsWith(begun)).toBe(true);
  expect(servedIn(JSON.parse(readFileSync('resumed.json', 'utf8')) as SweepReport)).toEqual(servedIn(alone));
  const other = await runHere('bench', '--campaign', 'mine', '--repeats', '2');
  expect(other.stderr).toContain('is of another campaign: repeats 2, not 1');
});

describe('refused', () => {
  const refusals: readonly (readonly [string, readonly string[], RegExp])[] = [
    ['no sweep', [...MEASURED, '--shard', '1/2'], /give --sweep with it/],
    ['a campaign that there is not', ['--campaign', 'absent'], /give --sweep with it/],
    ['experiments', ['--experiments', '--campaign', 'x'], /no --campaign beside --experiments/],
    ['a value that cannot be measured', [...SWEEP.slice(0, -1), 'queue-depth=1,99', '--shard', '1/2'], /"99": Give/],
    ['jobs beside a bench', [], /'--jobs <n>' cannot be used with option '--bench'/],
  ];
  test.each(refusals)('%s', async (name, flags, problem) => {
    const command = name.startsWith('jobs') ? ['work', '--queue', 'redis://h', '--bench', '--jobs', '2'] : ['bench'];
    const { code, stderr } = await runHere(...command, ...flags);
    expect(stderr).toMatch(problem);
    expect(code).toBe(2);
  });

  test('a file that is not the one which the campaign began with, and a device of another kind', async () => {
    const task = firstTask();
    const runner = openValueProcesses();
    const otherFile = runner.run({ ...task, files: { [Object.keys(task.files)[0]!]: 'another' } });
    const otherDevice = runner.run({ ...task, pace: 'gpu' });
    await expect(otherFile).rejects.toThrow(/own\.ts: its digest is \w+, the campaign's is another/);
    await expect(otherDevice).rejects.toThrow(/pace of the device is software; give "gpu"/);
    await runner.close();
  });
});

test('a process that is ended while it measures fails its value', async () => {
  const runner = openValueProcesses();
  const measured = runner.run(firstTask());
  await Promise.resolve();
  await runner.close();
  await expect(measured).rejects.toThrow('the process that measured it ended with SIGKILL');
});
