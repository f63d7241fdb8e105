/**
 * A campaign without a queue: parts that `merge` puts together print what one run prints, whatever the order; and parts
 * that do not fit are refused by name.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { runHere, type Ended } from '../run-cli.ts';

/** Two designs that keep every law and one that does not, a shard each. Each part has one. */
const CAMPAIGN = ['--design', 'off,mutant/appended-twice,deltas', '--seeds', '60', '--jobs', '2'];
const COUNT = 3;

const folder = mkdtempSync(join(tmpdir(), 'routed-experts-parts-'));
const startFolder = process.cwd();
const partFile = (i: number): string => join(folder, `part-${i}.jsonl`);
const copy = (file: string, change: (text: string) => string): string => {
  const changed = join(folder, 'changed.jsonl');
  writeFileSync(changed, change(readFileSync(file, 'utf8')));
  return changed;
};

const withoutTime = ({ stdout }: Ended): string => stdout.replace(/ in \S+ s: .*\n$/, '\n');

let one: Ended;

beforeAll(async () => {
  process.chdir(folder);
  one = await runHere('fuzz', ...CAMPAIGN);
  for (let i = 1; i <= COUNT; i += 1) {
    const ended = await runHere('fuzz', ...CAMPAIGN, '--shard', `${i}/${COUNT}`, '--part', partFile(i));
    expect(ended.code, ended.stderr).toBe(0);
  }
}, 120_000);

afterAll(() => {
  process.chdir(startFolder);
  rmSync(folder, { recursive: true, force: true });
});

test('merged parts print what one run prints, with its exit code and its case files', async () => {
  const cases = readdirSync(join(folder, 'out', 'fuzz'));
  const texts = cases.map((file) => readFileSync(join(folder, 'out', 'fuzz', file), 'utf8'));
  rmSync(join(folder, 'out', 'fuzz'), { recursive: true });
  const merged = await runHere('merge', partFile(3), partFile(1), partFile(2));
  expect(merged.stdout).toBe(withoutTime(one));
  expect(merged.code).toBe(1);
  expect(one.code).toBe(1);
  expect(cases.length).toBeGreaterThan(0);
  expect(readdirSync(join(folder, 'out', 'fuzz'))).toEqual(cases);
  expect(cases.map((file) => readFileSync(join(folder, 'out', 'fuzz', file), 'utf8'))).toEqual(texts);
});

test('how many threads run does not change where a broken design is stopped', async () => {
  const broken = ['--design', 'mutant/appended-twice', '--seeds', '501', '--jobs'];
  const alone = await runHere('fuzz', ...broken, '1');
  expect(alone.stdout).toContain('mutant/appended-twice: stopped after 500 of 501 storms');
  // With two threads the second shard, of a single seed, is done before the first.
  expect(withoutTime(await runHere('fuzz', ...broken, '2'))).toBe(withoutTime(alone));
});

describe('a part goes on where it was stopped', () => {
  beforeEach(() => rmSync(join(folder, 'changed.jsonl'), { force: true }));

  test('after its last whole line', async () => {
    const torn = copy(partFile(1), (text) => text.slice(0, -5));
    const refused = await runHere('merge', torn, partFile(2), partFile(3));
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/changed\.jsonl: part 1\/3 is not done: shard \d is missing/);
    const again = await runHere('fuzz', ...CAMPAIGN, '--shard', `1/${COUNT}`, '--part', torn);
    expect(again.code, again.stderr).toBe(0);
    expect(readFileSync(torn, 'utf8')).toBe(readFileSync(partFile(1), 'utf8'));
  });

  test('and a file of another campaign is left as it is', async () => {
    const before = readFileSync(partFile(1), 'utf8');
    const other = await runHere('fuzz', '--seeds', '7', '--shard', `1/${COUNT}`, '--part', partFile(1));
    expect(other.code).toBe(2);
    expect(other.stderr).toContain('is of another campaign: designs');
    const share = await runHere('fuzz', ...CAMPAIGN, '--shard', `2/${COUNT}`, '--part', partFile(1));
    expect(share.stderr).toContain('holds part 1/3, not 2/3');
    expect(readFileSync(partFile(1), 'utf8')).toBe(before);
  });
});

describe('merge refuses', () => {
  const refusals: readonly (readonly [string, () => readonly string[], RegExp])[] = [
    ['a missing part', () => [partFile(1), partFile(3)], /part 2\/3 of its campaign is missing/],
    ['a part that is there twice', () => [partFile(1), partFile(2), partFile(1)], /is part 1\/3, and so is .*part-1/],
    [
      'a part of another version',
      () => [partFile(1), partFile(2), copy(partFile(3), (text) => text.replace('"version":"', '"version":"9.'))],
      /changed\.jsonl: is of version 9\..* and this is version/,
    ],
    [
      'a part of another commit',
      () => [partFile(1), partFile(2), copy(partFile(3), (text) => text.replace('"commit":"', '"commit":"f'))],
      /changed\.jsonl: is of version .*, commit f.* check out the commit/,
    ],
    [
      'a part of another campaign',
      () => [partFile(1), partFile(2), copy(partFile(3), (text) => text.replace('"seeds":60', '"seeds":61'))],
      /changed\.jsonl: is of another campaign than .*part-1\.jsonl: seeds 61, not 60/,
    ],
    [
      'a part of a campaign that was cut in another way',
      () => [partFile(1), copy(partFile(2), (text) => text.replace('"count":3', '"count":4'))],
      /changed\.jsonl: is part 2\/4, .*part-1\.jsonl is 1\/3/,
    ],
    ['a file that is no part', () => [copy(partFile(1), () => '{"a": 1}\n')], /holds no results of a campaign/],
    ['an empty file', () => [copy(partFile(1), () => '')], /holds no results of a campaign/],
    [
      'a line that is no result',
      () => [copy(partFile(1), (text) => text.replace('"shard":', '"shart":'))],
      /line 2 is no result of a shard/,
    ],
    [
      'a shard with two results',
      () => [
        copy(partFile(1), (text) => text + text.split('\n')[1]!.replace('"steps":', '"steps":1') + '\n'),
        partFile(2),
        partFile(3),
      ],
      /ran twice and has two results \(L10\)/,
    ],
    ['a file that is not there', () => [join(folder, 'absent.jsonl')], /absent\.jsonl: cannot be read: ENOENT/],
  ];
  test.each(refusals)('%s', async (_, files, problem) => {
    const { code, stderr, stdout } = await runHere('merge', ...files());
    expect(stderr).toMatch(problem);
    expect(code).toBe(2);
    expect(stdout).toBe('');
  });
});

test.each([
  [['--shard', '1/2', '--queue', 'redis://127.0.0.1:1'], 'give either --shard or --queue'],
  [['--shard', '1/2', '--campaign', 'x'], 'give --part FILE'],
  [['--part', 'x'], 'give --shard i/n with it'],
  [['--shard', '3/2'], 'Give i/n'],
  [['--campaign', '../x'], 'Give at most 64 letters'],
  [['--queue', 'http://127.0.0.1'], 'Give redis://host:port'],
  [['--seed', '1', '--shard', '1/2'], 'no --shard beside'],
])('fuzz %j is bad usage', async (flags, problem) => {
  const { code, stderr } = await runHere('fuzz', ...flags);
  expect(stderr).toContain(problem);
  expect(code).toBe(2);
});

test('a campaign goes on by its id, as it began', async () => {
  const id = ['--campaign', 'nightly'];
  const few = ['--design', 'off', '--seeds', '510'];
  const first = await runHere('fuzz', ...few, ...id, '--json');
  const file = join(folder, 'out', 'campaigns', 'nightly.jsonl');
  const lines = readFileSync(file, 'utf8').split('\n');
  writeFileSync(file, `${lines.slice(0, 2).join('\n')}\n`);
  const resumed = await runHere('fuzz', ...id, '--json');
  const { designs, scenarios, seconds } = JSON.parse(resumed.stdout) as Record<string, unknown>;
  const whole = JSON.parse(first.stdout) as Record<string, unknown>;
  expect({ designs, scenarios }).toEqual({ designs: whole['designs'], scenarios: 510 });
  expect(seconds).toBeNull();
  expect(readFileSync(file, 'utf8').split('\n')).toHaveLength(lines.length);
  const other = await runHere('fuzz', ...id, '--seeds', '7');
  expect(other.code).toBe(2);
  expect(other.stderr).toContain('nightly.jsonl: is of another campaign: seeds 7, not 510');
});
