/** Every design under storms with KV outside the device: laws, event logs, files of scenarios, and smaller ones. */

import { expect, test } from 'vitest';
import { gapsThatApply } from '../../../src/capture/designs.ts';
import { runSeeds } from '../../../src/sim/campaign.ts';
import { closedMarks, marksOf, rareMarks } from '../../../src/sim/coverage.ts';
import { drawScenario } from '../../../src/sim/draw-scenario.ts';
import { findTestedDesign } from '../../../src/sim/mutants/mutants.ts';
import { drawOffloadScenario } from '../../../src/sim/offload/draw-offload-scenario.ts';
import { reportRun } from '../../../src/sim/run-report.ts';
import { runScenario } from '../../../src/sim/run-scenario.ts';
import { parseScenario } from '../../../src/sim/scenario.ts';
import { shrink } from '../../../src/sim/shrink.ts';
import { testedDesignByName, testedDesignNames } from '../../../src/sim/tested-design.ts';

for (const name of testedDesignNames) {
  const NUM_SEEDS = name === 'deltas' ? 200 : 30;
  test(`${name} keeps what it promises over ${NUM_SEEDS} storms with KV outside the device`, () => {
    const tested = testedDesignByName(name);
    const { violations, declared, marks } = runSeeds(tested, {
      from: 1,
      to: NUM_SEEDS + 1,
      offload: true,
      twice: false,
      stopAfter: 5,
    });
    const told = violations.map(
      ({ seed, law, what }) => `${law}: ${what} (fuzz --offload --design ${name} --seed ${seed})`,
    );
    expect(told).toEqual([]);
    const reachable = marksOf({ offload: true });
    for (const mark of closedMarks(name)) if (reachable.includes(mark)) expect(marks[mark], mark).toBe(0);
    if (name === 'deltas') {
      expect(rareMarks({ tested: name, beside: { offload: true }, scenarios: NUM_SEEDS, counts: marks })).toEqual([]);
    }
    // What vLLM refuses: a block in another slot has the rows of that slot.
    if (name === 'slot-store' || name === 'shm-flock') expect(declared.L2!.seeds).toBeGreaterThan(0);
  });
}

test('the gap of stale slots excuses nothing where KV stays on the device', () => {
  const { gaps } = testedDesignByName('slot-store');
  expect(gapsThatApply(gaps, { isOffloading: true }).map(({ law }) => law)).toContain('L2');
  expect(gapsThatApply(gaps, { isOffloading: false }).map(({ law }) => law)).not.toContain('L2');
});

test('one seed writes one event log (L10), also if it went through a file', () => {
  const tested = testedDesignByName('deltas');
  expect(runSeeds(tested, { from: 1, to: 21, offload: true, twice: true, stopAfter: 0 }).violations).toEqual([]);
  for (let seed = 1; seed <= 20; seed += 1) {
    const scenario = drawOffloadScenario(seed);
    const read = parseScenario(JSON.stringify(scenario), 'scenario.json');
    expect(runScenario(read, tested).hash).toBe(runScenario(scenario, tested, { isTracing: true }).hash);
    expect(drawScenario(seed).offload).toBeUndefined();
  }
});

test('a file whose tier makes no sense is refused by name', () => {
  const good = drawOffloadScenario(1);
  const { offload } = good;
  for (const bad of [
    3,
    { ...offload, hostBlocks: 0 },
    { ...offload, copy: { ...offload!.copy, ticks: -1 } },
    { ...offload, failedCopyShare: 2 },
    { ...offload, files: { blocks: 0 } },
  ]) {
    const text = JSON.stringify({ ...good, offload: bad });
    expect(() => parseScenario(text, 'scenario.json')).toThrow(/scenario\.json: .*"offload/);
  }
});

test('a failing seed shrinks, and its report names the tier', () => {
  const tested = findTestedDesign('mutant/believed-too-early');
  const { violations } = runSeeds(tested, { from: 1, to: 200, twice: false, stopAfter: 1 });
  const { scenario, violation } = shrink(drawOffloadScenario(violations[0]!.seed), tested)!;
  expect(violation.law).toBe(violations[0]!.law);
  expect(scenario.offload).toBeDefined();
  expect(reportRun(scenario, tested).join('\n')).toContain('host memory: ');
});
