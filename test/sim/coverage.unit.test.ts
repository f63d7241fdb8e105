/** A campaign that never went down a rare path proves nothing about it, and says so. */

import { expect, test } from 'vitest';
import { thinPathsOf } from '../../src/cli/fuzz/report.ts';
import type { CampaignPart } from '../../src/sim/campaign.ts';
import {
  ALL_MARKS,
  COVERAGE_SCENARIOS,
  marksOf,
  type Beside,
  type Mark,
  type MarkCounts,
} from '../../src/sim/coverage.ts';

const part = (scenarios: number, change: Partial<Record<Mark, number>>, design: string = 'deltas'): CampaignPart => {
  const all = Object.fromEntries(ALL_MARKS.map((mark) => [mark, scenarios])) as MarkCounts;
  const marks = { ...all, ...change };
  return { design, scenarios, steps: 0, violations: [], declared: {}, marks, hash: '' };
};

/** No storm has both; the marks of both are due. */
const ALL: Beside = { pd: true, offload: true };

test('every mark of a large campaign is due, and is named where too few scenarios reached it', () => {
  for (const mark of ALL_MARKS) {
    const beside = marksOf(ALL).includes(mark) ? ALL : { pipeline: true };
    const [thin, ...others] = thinPathsOf([part(COVERAGE_SCENARIOS, { [mark]: 0 })], beside);
    expect(others).toEqual([]);
    expect(thin).toMatchObject({ design: 'deltas', mark, count: 0 });
    expect(thin!.due).toBeGreaterThan(0);
    expect(thinPathsOf([part(COVERAGE_SCENARIOS, { [mark]: thin!.due - 1 })], beside)).toHaveLength(1);
    expect(thinPathsOf([part(COVERAGE_SCENARIOS, { [mark]: thin!.due })], beside)).toEqual([]);
  }
});

test('paths between two engines are not due where there is one', () => {
  const none = Object.fromEntries(ALL_MARKS.map((mark) => [mark, 0]));
  const thin = thinPathsOf([part(COVERAGE_SCENARIOS, none)], {}).map(({ mark }) => mark);
  expect(thin).toEqual(marksOf({}));
  expect(thin).not.toContain('KV loaded');
  expect(thin).not.toContain('block loaded back');
});

test('a path that a design cannot take is not due', () => {
  expect(thinPathsOf([part(COVERAGE_SCENARIOS, { 'ring full': 0 }, 'shm-flock')], {})).toEqual([]);
});

test('a small campaign says nothing', () => {
  expect(thinPathsOf([part(COVERAGE_SCENARIOS - 1, { 'ring full': 0 })], {})).toEqual([]);
});
