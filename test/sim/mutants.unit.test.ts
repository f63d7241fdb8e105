/**
 * The oracle has no hole where engines have had defects: each mutant is killed within 2,000 seeds, and what they are
 * made of survives.
 */

import { expect, test } from 'vitest';
import { runSeeds } from '../../src/sim/campaign.ts';
import { drawScenario } from '../../src/sim/draw-scenario.ts';
import { CONTROL, findTestedDesign, mutants, mutantDesign } from '../../src/sim/mutants/mutants.ts';
import { runScenario } from '../../src/sim/run-scenario.ts';
import { shrink } from '../../src/sim/shrink.ts';
import { reportRun } from '../../src/sim/run-report.ts';

const NUM_SEEDS = 2000;

for (const mutant of mutants) {
  test(`defect ${mutant.number}, ${mutant.name}, is found`, () => {
    const { violations } = runSeeds(mutantDesign(mutant), { from: 1, to: NUM_SEEDS + 1, twice: false, stopAfter: 1 });
    expect(violations, `${mutant.defect}: no seed of ${NUM_SEEDS} finds it`).toHaveLength(1);
  });
}

test('the control survives', () => {
  expect(runSeeds(CONTROL, { from: 1, to: 501, twice: false, stopAfter: 1 }).violations).toEqual([]);
});

test('a mutation of the code under test is taken back after the run', () => {
  const broken = findTestedDesign('mutant/double-free');
  expect(runSeeds(broken, { from: 1, to: 101, twice: false, stopAfter: 1 }).violations).toHaveLength(1);
  expect(runSeeds(findTestedDesign('deltas'), { from: 1, to: 101, twice: false, stopAfter: 1 }).violations).toEqual([]);
});

test('a failing seed shrinks to a small scenario that breaks the same law, and its report says what did what', () => {
  const tested = findTestedDesign('mutant/appended-twice');
  const { violations } = runSeeds(tested, { from: 1, to: 200, twice: false, stopAfter: 1 });
  const original = drawScenario(violations[0]!.seed);
  const { scenario, violation } = shrink(original, tested)!;
  expect(violation.law).toBe(violations[0]!.law);
  expect(runScenario(scenario, tested).violation?.message).toBe(violation.message);
  expect(scenario.requests.length).toBeLessThanOrEqual(2);
  expect(JSON.stringify(scenario).length).toBeLessThan(JSON.stringify(original).length);
  const report = reportRun(scenario, tested);
  expect(report.at(-1)).toBe(`${violation.law} broken (wrong): ${violation.message}`);
  expect(report.join('\n')).toContain('step 0 is begun');
});

test('what keeps every law does not shrink', () => {
  expect(shrink(drawScenario(1), findTestedDesign('deltas'))).toBeNull();
});
