// What else the machine did while it was measured: clocks that drift, other load, stolen time. Pure, over samples.

import { describe, expect, test } from 'vitest';
import { parseProcStat, sampleProcessorTime } from '../../src/cli/bench/measure/processor-time.ts';
import { driftOf } from '../../src/cli/bench/statistics/drift.ts';
import type { LoadSample } from '../../src/cli/bench/statistics/other-load.ts';
import { otherLoad } from '../../src/cli/bench/statistics/other-load.ts';
import { random } from '../../src/workload/random.ts';

function steady(seed: number, count: number, spread: number): number[] {
  const stream = random(seed, 'test/steady');
  return Array.from({ length: count }, () => 1000 * (1 + spread * (2 * stream.nextFloat() - 1)));
}

describe('drift', () => {
  test('clocks that rise or fall are told, with how much', () => {
    const rates = steady(1, 30, 0.02);
    expect(driftOf(rates.map((rate, i) => rate * (1 + 0.01 * i)))).toBeCloseTo(1.19, 1);
    expect(driftOf(rates.map((rate, i) => rate / (1 + 0.01 * i)))).toBeCloseTo(0.84, 1);
  });

  test('a steady machine is called drifting in at most 2 % of cases, however noisy', () => {
    const drifting = Array.from({ length: 500 }, (_, seed) => driftOf(steady(seed, 20, 0.5))).filter(
      (change) => change !== null,
    );
    expect(drifting.length).toBeLessThanOrEqual(10);
  });

  test('one slow run, a change of less than 3 %, and fewer than 8 runs are no drift', () => {
    const oneSlow = steady(2, 20, 0.01);
    oneSlow[0]! /= 10;
    expect(driftOf(oneSlow)).toBeNull();
    expect(driftOf(Array.from({ length: 20 }, (_, i) => 1000 + i))).toBeNull();
    expect(driftOf([1, 2, 3, 4, 5, 6, 7])).toBeNull();
    expect(driftOf([1, 2, 3, 4, 5, 6, 7, 8])).not.toBeNull();
  });
});

function sample(fields: Partial<LoadSample>): LoadSample {
  return { busyMs: 0, totalMs: 0, stolenMs: 0, ownMs: 0, runnable: 1, ...fields };
}

describe('other load', () => {
  test('is what the processors did, less what this process did', () => {
    const samples = [
      sample({ busyMs: 1000, totalMs: 10_000, stolenMs: 50, ownMs: 300 }),
      sample({ busyMs: 1700, totalMs: 11_000, stolenMs: 70, ownMs: 600, runnable: 4 }),
      sample({ busyMs: 2000, totalMs: 12_000, stolenMs: 90, ownMs: 800 }),
    ];
    expect(otherLoad(samples)).toEqual({ busyShare: 0.25, stolenShare: 0.02, runnable: 1 });
  });

  test('is not known from one sample, and never negative', () => {
    expect(otherLoad([])).toBeNull();
    expect(otherLoad([sample({ totalMs: 5 })])).toBeNull();
    expect(otherLoad([sample({}), sample({ totalMs: 100, busyMs: 50, ownMs: 60 })])?.busyShare).toBe(0);
  });
});

describe('/proc/stat', () => {
  const text = [
    'cpu  100 10 20 1000 5 1 2 7 30 0',
    'cpu0 100 10 20 1000 5 1 2 7 30 0',
    'ctxt 1',
    'procs_running 3',
    'procs_blocked 0',
  ].join('\n');

  test('ticks of ten milliseconds; guests are in the users already', () => {
    expect(parseProcStat(text, 12)).toEqual({ busyMs: 1330, totalMs: 11_450, stolenMs: 70, ownMs: 12, runnable: 3 });
  });

  test.each([
    ['empty', ''],
    ['no run queue', text.replace('procs_running 3', '')],
    ['no stolen time', text.replace('cpu  100 10 20 1000 5 1 2 7 30 0', 'cpu  100 10 20 1000 5 1 2')],
    ['no numbers', text.replace('cpu  100', 'cpu  x')],
  ])('%s: unknown', (_name, broken) => {
    expect(parseProcStat(broken, 0)).toBeNull();
  });

  test.runIf(process.platform === 'linux')('is read on Linux', () => {
    const { totalMs, busyMs, ownMs, runnable } = sampleProcessorTime()!;
    expect(totalMs).toBeGreaterThan(busyMs);
    expect(ownMs).toBeGreaterThan(0);
    expect(runnable).toBeGreaterThanOrEqual(1);
  });
});
