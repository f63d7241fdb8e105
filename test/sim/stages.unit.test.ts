// Storms on a pipeline of stages: rows are whole and right under everything that one engine survives (L1 – L9), and one
// seed writes one event log (L10).

import { expect, test } from 'vitest';
import { runSeeds, scenarioOf } from '../../src/sim/campaign.ts';
import { parseScenario } from '../../src/sim/scenario.ts';
import { testedDesignByName } from '../../src/sim/tested-design.ts';

test.each([
  ['off', 20],
  ['deltas', 150],
  ['deltas/share', 30],
  ['deltas/recompute', 30],
  ['deltas/computed-only', 30],
])('%s keeps what it promises over %i storms on stages', (name, numSeeds) => {
  const tested = testedDesignByName(name);
  const { violations } = runSeeds(tested, { from: 1, to: numSeeds + 1, pipeline: true, twice: false, stopAfter: 5 });
  expect(violations.map(({ seed, law, what }) => `${law}: ${what} (fuzz --pipeline --seed ${seed})`)).toEqual([]);
});

test('one seed writes one event log (L10), also if it went through a file', () => {
  const tested = testedDesignByName('deltas');
  expect(runSeeds(tested, { from: 1, to: 31, pipeline: true, twice: true, stopAfter: 0 }).violations).toEqual([]);
  const scenario = scenarioOf(3, tested, { pipeline: true });
  expect(parseScenario(JSON.stringify(scenario), 'saved.json')).toEqual(scenario);
  const bad = { ...scenario, stages: { ...scenario.stages!, split: [1] } };
  expect(() => parseScenario(JSON.stringify(bad), 'bad.json')).toThrow('pipelineSplit');
  const slow = { ...scenario, stages: { ...scenario.stages!, slowFactor: -1 } };
  expect(() => parseScenario(JSON.stringify(slow), 'bad.json')).toThrow('"stages.slowFactor" is no number');
});
