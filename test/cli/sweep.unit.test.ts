// What a sweep varies, what it refuses, and how its results are shown.

import { InvalidArgumentError } from 'commander';
import { describe, expect, test } from 'vitest';
import { checkRunning, checkSweep, parseSweep, sweepHelp, sweptFlags } from '../../src/cli/bench/flags/sweep.ts';
import { dividedEnding } from '../../src/cli/bench/pair-schedule.ts';
import { modelOf, parseLayersXK } from '../../src/cli/bench/flags/model-flags.ts';
import { workloads } from '../../src/workload/workloads.ts';

const base: Readonly<{ model: string; requests?: number }> = { model: 'tiny' };

const closed = (concurrency: number) => ({ kind: 'closed', concurrency }) as const;

describe('values', () => {
  test.each([
    ['prompt-length=16, 256', [{ workload: 'fixed', promptLength: 16 }, { promptLength: 256 }]],
    ['layers-x-k=36x4,61x8', [{ layersXK: { numLayers: 36, topK: 4 } }, { layersXK: { numLayers: 61, topK: 8 } }]],
    ['opt-in=0,0.25,1', [{ optIn: [0] }, { optIn: [0.25] }, { optIn: [1] }]],
    ['ranks=1,4', [{ ranks: 1 }, { ranks: 4 }]],
    ['queue-depth=1,2,2,3', [{ queueDepth: 1 }, { queueDepth: 2 }, { queueDepth: 3 }]],
    [
      'requests-running=4,8',
      [
        { concurrency: 4, requests: 16 },
        { concurrency: 8, requests: 16 },
      ],
    ],
  ])('%s sets its flags, and leaves the others alone', (text, expected) => {
    const each = sweptFlags(parseSweep(text), base);
    expect(each).toMatchObject(expected.map((flags) => ({ ...base, ...flags })));
    expect(each).toHaveLength(expected.length);
  });

  test.each([
    ['foo=1,2', /"foo" cannot be swept\. Give <parameter>=<values>, of: requests-running, .*queue-depth\.$/],
    ['=1,2', /"" cannot be swept/],
    ['ranks', /Give 2 to 32 different values, as ranks=a,b,c/],
    ['ranks=', /Give 2 to 32 different values/],
    ['ranks=2', /Give 2 to 32 different values/],
    ['ranks=2,2', /Give 2 to 32 different values/],
    [`queue-depth=${Array.from({ length: 33 }, (_, i) => i + 1).join(',')}`, /Give 2 to 32 different values/],
    ['ranks=1,17', /^"17": Give a whole number in \[1, 16\]/],
    ['ranks=1,,2', /^"": Give a whole number/],
    ['opt-in=0,1.5', /^"1\.5": Give a number in \[0, 1\]/],
    ['layers-x-k=36x4,61', /^"61": Give layers x K, as 61x8/],
    ['layers-x-k=0x4,61x8', /^"0x4": Give layers x K/],
    ['prompt-length=0,5', /^"0": Give a whole number in \[1, /],
  ])('%s is refused', (text, message) => {
    expect(() => parseSweep(text)).toThrow(InvalidArgumentError);
    expect(() => parseSweep(text)).toThrow(message);
  });

  test.each([
    ['opt-in=0,1', 'optIn'],
    ['requests-running=1,2', 'openLoop'],
    ['prompt-length=1,2', 'trace'],
    ['layers-x-k=1x1,2x2', 'recording'],
    ['ranks=1,2', 'ranks'],
    ['queue-depth=1,2', 'queueDepth'],
  ])('%s beside --%s is refused', (text, flag) => {
    const sweep = parseSweep(text);
    expect(() =>
      checkSweep(
        sweep,
        (given) => given === flag,
        (name) => `--${name}`,
      ),
    ).toThrow(`--sweep is ${sweep.parameter}; give a sweep of another parameter, or leave out --${flag}`);
    expect(() => checkSweep(sweep, (given) => given === 'seed', String)).not.toThrow();
  });

  test('every parameter is explained, in 100 columns', () => {
    const lines = sweepHelp().split('\n');
    expect(lines.map((line) => line.trim().split(' ')[0])).toEqual([
      'requests-running',
      'prompt-length',
      'layers-x-k',
      'opt-in',
      'ranks',
      'queue-depth',
    ]);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
  });
});

describe('requests running', () => {
  const chat = workloads.chat.generate({ seed: 1, vocabSize: 97, requests: 8 });

  test('a number of requests of the caller’s own stays, and must be enough', () => {
    const each = sweptFlags(parseSweep('requests-running=4,9'), { requests: 8 });
    expect(each.map(({ requests }) => requests)).toEqual([8, 8]);
    expect(() => checkRunning({ workload: chat, mode: closed(8) })).not.toThrow();
    expect(() => checkRunning({ workload: chat, mode: closed(9) })).toThrow(
      '--sweep requests-running is 9; give values up to 8, the requests of chat (or raise --requests)',
    );
  });

  test('a workload that needs all its requests at once is refused', () => {
    const workload = workloads.burst.generate({ seed: 1, vocabSize: 97, requests: 8 });
    expect(() => checkRunning({ workload, mode: closed(4) })).toThrow(/^--workload is burst; give another one/);
  });
});

describe('layers and K', () => {
  const flags = { model: 'tiny', gateWidth: 8 };

  test('take the place of the model’s own', () => {
    expect(modelOf({ ...flags, layersXK: parseLayersXK('10x4') }, null)).toMatchObject({
      name: 'tiny',
      numLayers: 10,
      topK: 4,
      numExperts: 8,
    });
    expect(modelOf(flags, null)).toMatchObject({ numLayers: 2, topK: 2 });
  });

  test('more than the experts, or than those of the kept groups, are refused', () => {
    expect(() => modelOf({ ...flags, layersXK: parseLayersXK('2x9') }, null)).toThrow(
      '--layers-x-k is 2x9; give a K of at most 8, the experts of tiny (--model)',
    );
    const grouped = { ...flags, model: 'tiny-grouped', layersXK: parseLayersXK('2x9') };
    expect(() => modelOf(grouped, null)).toThrow(/at most the 8 experts of the kept groups/);
  });
});

test('the values share the time', () => {
  const ending = { kind: 'half-width', halfWidth: 0.02, budgetMs: 90_000, isBudgetGiven: true } as const;
  expect(dividedEnding(ending, 3)).toEqual({ ...ending, budgetMs: 30_000, numBenches: 3 });
  const repeats = { kind: 'repeats', repeats: 3 } as const;
  expect(dividedEnding(repeats, 3)).toEqual(repeats);
});
