// What --lockstep takes: a time-out that is longer than a step and rules inside it, and a fault of a rank there is.

import { expect, test } from 'vitest';
import { checkFaultRank, collectiveTimeoutOf, ranksPerEngine } from '../../src/cli/bench/flags/lockstep-flags.ts';
import { DEFAULT_CLOCK_TIMES } from '../../src/kernels/device/clock/clock-times.ts';

const onClock = { clockTimes: DEFAULT_CLOCK_TIMES, ballastMs: 0, maxNumBatchedTokens: 1000 };
const onGpu = { clockTimes: null, ballastMs: 10, maxNumBatchedTokens: 2048 };
const refused = (message: string) => expect.objectContaining({ code: 'BAD_VALUE', message });

test('without --lockstep there is no time-out, and none may be given', () => {
  expect(collectiveTimeoutOf({ stepTimeout: 300 }, onClock)).toBeNull();
  const message = '--collective-timeout is 5; give none, or --lockstep: without it no rank waits for another';
  expect(() => collectiveTimeoutOf({ stepTimeout: 300, collectiveTimeout: 5 }, onClock)).toThrow(refused(message));
});

test('the default is a minute, or the step time-out if that is shorter; a step time-out of 0 is none', () => {
  expect(collectiveTimeoutOf({ lockstep: true, stepTimeout: 300 }, onClock)).toBe(60_000);
  expect(collectiveTimeoutOf({ lockstep: true, stepTimeout: 20 }, onClock)).toBe(20_000);
  expect(collectiveTimeoutOf({ lockstep: true, stepTimeout: 0, collectiveTimeout: 900 }, onClock)).toBe(900_000);
});

test('a time-out over that of the step, or within a step, is refused', () => {
  const flags = { lockstep: true, stepTimeout: 10 };
  const over = '--collective-timeout is 11; give at most 10 s, the --step-timeout, which would end the step before';
  expect(() => collectiveTimeoutOf({ ...flags, collectiveTimeout: 11 }, onClock)).toThrow(refused(over));
  const within = '--collective-timeout is 0.05; give more than 0.068 s, which a step of 1000 tokens takes';
  expect(() => collectiveTimeoutOf({ ...flags, collectiveTimeout: 0.05 }, onClock)).toThrow(refused(within));
  const ballast = '--collective-timeout is 0.01; give more than 0.010 s, which a step of 2048 tokens takes';
  expect(() => collectiveTimeoutOf({ ...flags, collectiveTimeout: 0.01 }, onGpu)).toThrow(refused(ballast));
  expect(collectiveTimeoutOf({ ...flags, collectiveTimeout: 0.011 }, onGpu)).toBe(11);
});

test('a fault of a rank that there is not is refused', () => {
  expect(() => checkFaultRank(3, 4)).not.toThrow();
  const message = '--fault-rank is 4; give a rank below 4 (--ranks)';
  expect(() => checkFaultRank(4, 4)).toThrow(refused(message));
});

const plain = { router: 'modular', routing: 'deterministic' } as const;

test('engines share the ranks alike, and only several of them dispatch', () => {
  expect(ranksPerEngine({ ...plain, ranks: 8, dataParallel: 2, dispatch: 'naive' })).toBe(4);
  const alike = '--data-parallel is 3; give a number that divides the 8 ranks (--ranks), as each engine has as many';
  expect(() => ranksPerEngine({ ...plain, ranks: 8, dataParallel: 3, dispatch: 'modular' })).toThrow(refused(alike));
  const alone = '--dispatch is naive; give modular, or --data-parallel 2 or more';
  expect(() => ranksPerEngine({ ...plain, ranks: 8, dataParallel: 1, dispatch: 'naive' })).toThrow(refused(alone));
  expect(collectiveTimeoutOf({ dataParallel: 2, stepTimeout: 300 }, onGpu)).toBe(60_000);
});

const shardsRefused = (wanted: string): unknown =>
  refused(`--dispatch is modular-shards; give another one, or ${wanted}`);

test('shards are for several ranks of an engine, behind a modular router that computes', () => {
  const shards = { ...plain, ranks: 8, dataParallel: 2, dispatch: 'modular-shards' } as const;
  expect(ranksPerEngine(shards)).toBe(4);
  expect(() => ranksPerEngine({ ...shards, ranks: 2 })).toThrow(
    shardsRefused('more ranks: an engine of one rank has no shards'),
  );
  const monolithic = '--router modular: a monolithic one routes all rows';
  expect(() => ranksPerEngine({ ...shards, router: 'monolithic' })).toThrow(shardsRefused(monolithic));
  const recorded = 'no --recording, which knows no shards';
  expect(() => ranksPerEngine({ ...shards, routing: 'replay' })).toThrow(shardsRefused(recorded));
});
