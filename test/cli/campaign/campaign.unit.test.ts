/**
 * The bookkeeping of a campaign: each shard counts once, in order, whatever order results come in; and a series ends
 * with the same shard whatever runs beside it.
 */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Campaign } from '../../../src/cli/campaign/core/campaign.ts';
import { parseShare, showShare, type Share } from '../../../src/cli/campaign/core/share.ts';

type Result = Readonly<{ shard: number; numViolations: number }>;

const MOST_VIOLATIONS = 3;

/** A campaign of series with so many violations in each shard. */
function campaignOf(violations: readonly (readonly number[])[], share?: Share): Campaign<Result> {
  return new Campaign<Result>({
    series: violations.map(({ length }) => ({ numShards: length, mostViolations: MOST_VIOLATIONS })),
    numViolations: (result) => result.numViolations,
    ...(share && { share }),
  });
}

/** The results of all shards, also of those that nobody needs. */
function allResults(violations: readonly (readonly number[])[]): Result[] {
  return violations.flat().map((numViolations, shard) => ({ shard, numViolations }));
}

/** As one process does it: a shard after the other. */
function inOrder(violations: readonly (readonly number[])[]): Result[][] {
  const campaign = campaignOf(violations);
  const results = allResults(violations);
  for (const shard of campaign.unfinished()) campaign.add(shard, results[shard]!);
  return campaign.results();
}

const anyViolations = fc.array(fc.array(fc.constantFrom(0, 0, 0, 1, 2, 5), { maxLength: 8 }), { maxLength: 4 });

test('the result does not depend on the order in which shards are done, nor on how often each is', () => {
  const runs = anyViolations.chain((violations) => {
    const results = allResults(violations);
    const again = fc.array(fc.nat({ max: Math.max(0, results.length - 1) }), { maxLength: 10 });
    const order = again.chain((more) => fc.shuffledSubarray([...results, ...more.flatMap((i) => results[i] ?? [])]));
    return fc.record({ violations: fc.constant(violations), order });
  });
  fc.assert(
    fc.property(runs, ({ violations, order }) => {
      const campaign = campaignOf(violations);
      // A copy, as one that came through a file or a queue.
      for (const result of order) campaign.add(result.shard, structuredClone(result));
      const results = allResults(violations);
      for (const shard of campaign.unfinished()) campaign.add(shard, results[shard]!);
      expect(campaign.results()).toEqual(inOrder(violations));
    }),
    { numRuns: 500 },
  );
});

test('a share needs every shard of its own that the whole needs, and the shares together make the whole', () => {
  fc.assert(
    fc.property(anyViolations, fc.integer({ min: 1, max: 5 }), (violations, count) => {
      const results = allResults(violations);
      const whole = campaignOf(violations);
      for (let index = 0; index < count; index += 1) {
        const share = campaignOf(violations, { index, count });
        for (const shard of share.unfinished()) share.add(shard, results[shard]!);
        for (const result of share.results().flat()) whole.add(result.shard, result);
      }
      expect([...whole.unfinished()]).toEqual([]);
      expect(whole.results()).toEqual(inOrder(violations));
    }),
    { numRuns: 500 },
  );
});

test('a series ends with the shard in which its violations get too many, and the next one goes on', () => {
  const violations = [
    [1, 0, 2, 1, 0, 1],
    [0, 0],
  ];
  expect(inOrder(violations).map((results) => results.map(({ shard }) => shard))).toEqual([
    [0, 1, 2, 3],
    [6, 7],
  ]);
});

test('a shard behind the end of its series counts for nothing, also when it was done first', () => {
  const campaign = campaignOf([[4, 9]]);
  expect(campaign.add(1, { shard: 1, numViolations: 9 })).toBe(true);
  expect(campaign.isComplete).toBe(false);
  expect(campaign.add(0, { shard: 0, numViolations: 4 })).toBe(true);
  expect(campaign.isComplete).toBe(true);
  expect(campaign.isNeeded(1)).toBe(false);
  expect(campaign.results()).toEqual([[{ shard: 0, numViolations: 4 }]]);
});

test('a second result of a shard is not taken, and one that differs is loud (L10)', () => {
  const campaign = campaignOf([[0, 0]]);
  expect(campaign.add(0, { shard: 0, numViolations: 0 })).toBe(true);
  expect(campaign.add(0, { shard: 0, numViolations: 0 })).toBe(false);
  expect(() => campaign.add(0, { shard: 0, numViolations: 1 })).toThrow('shard 0 ran twice');
  expect(() => campaign.results()).toThrow('not complete');
});

test('a shard that there is not is not taken', () => {
  const campaign = campaignOf([[0]]);
  expect(campaign.add(7, { shard: 7, numViolations: 0 })).toBe(false);
  expect(campaign.isComplete).toBe(false);
});

test.each(['', '0/2', '3/2', '1', '1/0', '-1/2', '1/2/3', 'a/b', '1/100001'])('"%s" is no share', (text) => {
  expect(parseShare(text)).toBeNull();
});

test('a share is written as it is read', () => {
  expect(showShare(parseShare('2/8')!)).toBe('2/8');
});
