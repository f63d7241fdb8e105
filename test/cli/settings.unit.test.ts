// What ends a bench, from its flags and the device.

import { expect, test } from 'vitest';
import { DEFAULTS, endingOf } from '../../src/cli/bench/settings.ts';

const { gpu, software } = DEFAULTS;

test('without flags: intervals of ± 1 % on a GPU, ± 2 % without, in the time of each', () => {
  const common = { kind: 'half-width', isBudgetGiven: false };
  expect(endingOf({}, gpu)).toEqual({ ...common, halfWidth: 0.01, budgetMs: 900_000 });
  expect(endingOf({}, software)).toEqual({ ...common, halfWidth: 0.02, budgetMs: 110_000 });
});

test('--repeats is a number of pairs, --time-budget a time that is kept or refused', () => {
  expect(endingOf({ repeats: 3 }, gpu)).toEqual({ kind: 'repeats', repeats: 3 });
  expect(endingOf({ timeBudget: 2.5, openLoop: true }, software)).toEqual({
    kind: 'half-width',
    halfWidth: 0.02,
    budgetMs: 2500,
    isBudgetGiven: true,
  });
});

test('a trace is served once, an open loop five times, unless a flag says otherwise', () => {
  expect(endingOf({ trace: 'x', openLoop: true }, gpu)).toEqual({ kind: 'repeats', repeats: 1 });
  expect(endingOf({ openLoop: true }, gpu)).toEqual({ kind: 'repeats', repeats: 5 });
  expect(endingOf({ trace: 'x', timeBudget: 9 }, gpu)).toMatchObject({ kind: 'half-width', budgetMs: 9000 });
  expect(endingOf({ trace: 'x', repeats: 7 }, gpu)).toEqual({ kind: 'repeats', repeats: 7 });
});
