// `compare` names what happened to rows on their way from rollout to trainer: each known disturbance, for any shape,
// also with disagreements of a few ids on top of it.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareRowSets } from '../../src/analysis/agreement/diagnose.ts';
import type { RowSet } from '../../src/analysis/agreement/row-set.ts';
import { asOneList } from '../../src/analysis/agreement/row-set.ts';
import type { Shape } from './disturbed.ts';
import { disturbances, randomOf, randomRowSet, withNoise } from './disturbed.ts';

const shapes = fc
  .record({
    numLayers: fc.integer({ min: 2, max: 6 }),
    topK: fc.integer({ min: 2, max: 4 }),
    numExperts: fc.integer({ min: 12, max: 24 }),
    lengths: fc.array(fc.integer({ min: 60, max: 90 }), { minLength: 2, maxLength: 4 }),
    seed: fc.integer({ min: 1, max: 2 ** 31 }),
  })
  .map(({ seed, ...shape }) => ({ shape: shape satisfies Shape, random: randomOf(seed) }));

describe.each(Object.entries(disturbances))('%s', (_name, { kind, disturb }) => {
  test(`is named ${kind}`, () => {
    const check = fc.property(shapes, ({ shape, random }) => {
      const a = randomRowSet(shape, random);
      const { verdict } = compareRowSets(a, disturb(a, shape, random));
      expect(verdict.kind, verdict.words).toBe(kind);
    });
    fc.assert(check, { numRuns: 8 });
  });

  test('is named under a few ids that differ', () => {
    // Where equality itself is what tells, noise takes it away.
    if (kind === 'other-weights') return;
    const check = fc.property(shapes, ({ shape, random }) => {
      const a = randomRowSet(shape, random);
      const noisy = withNoise(a, shape, 0.02, random);
      const { verdict } = compareRowSets(a, disturb(noisy, shape, random));
      expect(verdict.kind, verdict.words).toBe(kind);
    });
    fc.assert(check, { numRuns: 4 });
  });
});

function rows(ids: readonly number[]): RowSet {
  const request = { id: 'r0', ids: Int32Array.from(ids), numRows: ids.length / 2, promptLen: null };
  return { numLayers: 1, topK: 2, requests: [request] };
}

const SHAPE: Shape = { numLayers: 3, topK: 2, numExperts: 16, lengths: [60, 70] };

test('requests that are swapped in one list of rows are found without their boundaries', () => {
  const a = randomRowSet(SHAPE, randomOf(7));
  const swapped = { ...a, requests: a.requests.toReversed() };
  const { verdict } = compareRowSets(asOneList(a), asOneList(swapped));
  expect(verdict.kind).toBe('requests-swapped');
});

test('the same rows are identical; rows of other tokens are unrelated', () => {
  const a = randomRowSet(SHAPE, randomOf(7));
  expect(compareRowSets(a, a).verdict.kind).toBe('identical');
  expect(compareRowSets(a, randomRowSet(SHAPE, randomOf(8))).verdict.kind).toBe('unrelated');
});

test('a few ids that differ everywhere are told as such, with their share', () => {
  const a = randomRowSet(SHAPE, randomOf(7));
  const { verdict, agreement } = compareRowSets(a, withNoise(a, SHAPE, 0.05, randomOf(9)));
  expect(verdict.kind).toBe('scattered');
  expect(agreement.miles.passes).toBe(true);
});

test("miles' rule: a token differs without a common id, in its worst layer; over 1 % of tokens fails", () => {
  // 100 tokens: one of padding, one that shares an id, one and then two without a common id.
  const base = Array.from({ length: 200 }, (_, i) => i % 2);
  const padded = [-1, -1, ...base.slice(2)];
  const one = [...padded.slice(0, 196), 1, 5, 7, 8];
  const two = [...padded.slice(0, 194), 7, 8, 1, 5, 7, 8];
  const of = (other: readonly number[]): object => compareRowSets(rows(padded), rows(other)).agreement.miles;
  expect(of(one)).toMatchObject({ numTokens: 99, numDifferent: 1, passes: false });
  expect(of([...one.slice(0, 198), 0, 8])).toMatchObject({ numTokens: 99, numDifferent: 0, passes: true });
  expect(of(two)).toMatchObject({ numDifferent: 2, passes: false });
  const half = compareRowSets(rows(padded), rows(one), 1).agreement.miles;
  expect(half, 'every id must be common').toMatchObject({ numDifferent: 2 });
});

test('the first layer that differs, and rows that one side lacks, are told apart from padding', () => {
  const a = randomRowSet(SHAPE, randomOf(7));
  const ids = a.requests[1]!.ids.slice(0, 60 * 6);
  ids.fill(-1, 50 * 6, 52 * 6);
  ids[10 * 6 + 3] = 15;
  ids[10 * 6 + 2] = 14;
  const requests = [a.requests[0]!, { ...a.requests[1]!, ids, numRows: 60 }];
  const { agreement } = compareRowSets(a, { ...a, requests });
  expect(agreement.first).toMatchObject({ request: 'r1', position: 10, layer: 1, b: [14, 15] });
  expect(agreement.onlyA).toEqual([
    {
      request: 'r1',
      ranges: [
        [50, 52],
        [60, 70],
      ],
    },
  ]);
  expect(agreement.paddingRows).toEqual({ a: 0, b: 2 });
});
