/**
 * Every design under a fixed campaign: no law is broken that it does not declare (L1–L9), the same seed writes the same
 * event log (L10), and the storms go where it hurts.
 */

import { expect, test } from 'vitest';
import { validateEngineConfig } from '../../src/engine/engine-config.ts';
import { runSeeds } from '../../src/sim/campaign.ts';
import { rareMarks } from '../../src/sim/coverage.ts';
import { drawScenario } from '../../src/sim/draw-scenario.ts';
import { runScenario } from '../../src/sim/run-scenario.ts';
import { parseScenario } from '../../src/sim/scenario.ts';
import { testedDesignByName, testedDesignNames } from '../../src/sim/tested-design.ts';
import { LAWS } from '../../src/sim/laws/violation.ts';

for (const name of testedDesignNames) {
  // The rarest path is due once in 1,000 storms. Every commit puts each design through 1,000 fresh ones besides.
  const NUM_SEEDS = name === 'deltas' ? 1000 : 400;
  test(`${name} keeps what it promises over ${NUM_SEEDS} storms`, () => {
    const tested = testedDesignByName(name);
    const { violations, declared, marks } = runSeeds(tested, {
      from: 1,
      to: NUM_SEEDS + 1,
      twice: false,
      stopAfter: 5,
    });
    const told = violations.map(({ seed, law, what }) => `${law}: ${what} (fuzz --design ${name} --seed ${seed})`);
    expect(told).toEqual([]);
    for (const law of LAWS) {
      if (declared[law] !== undefined) expect(tested.gaps.map((gap) => gap.law)).toContain(law);
    }
    const campaign = { tested: name, beside: {}, scenarios: NUM_SEEDS, counts: marks };
    expect(rareMarks(campaign)).toEqual([]);
  });
}

test('one seed writes one event log (L10)', () => {
  for (const name of ['deltas', 'shm-flock', 'block-store']) {
    const { violations, hash } = runSeeds(testedDesignByName(name), { from: 1, to: 101, twice: true, stopAfter: 0 });
    expect(violations).toEqual([]);
    expect(runSeeds(testedDesignByName(name), { from: 1, to: 101, twice: false, stopAfter: 0 }).hash).toBe(hash);
  }
});

test('a seed draws the same scenario always, and one that survives a file', () => {
  for (let seed = 1; seed <= 50; seed += 1) {
    const scenario = drawScenario(seed);
    expect(drawScenario(seed)).toEqual(scenario);
    const read = parseScenario(JSON.stringify(scenario), 'scenario.json');
    expect(runScenario(read, testedDesignByName('deltas')).hash).toBe(
      runScenario(scenario, testedDesignByName('deltas')).hash,
    );
  }
});

test('every seed draws an engine that there can be, also where no request has a prompt', () => {
  const noPrompts = 90_013_828;
  expect(drawScenario(noPrompts).requests.map(({ prompt }) => prompt)).toEqual([[]]);
  for (const seed of [noPrompts, ...Array(3000).keys()]) {
    expect(() => validateEngineConfig(drawScenario(seed).engine), `seed ${seed}`).not.toThrow();
  }
});

test('the event log does not depend on whether it is written out', () => {
  const scenario = drawScenario(7);
  const tested = testedDesignByName('deltas');
  expect(runScenario(scenario, tested, { isTracing: true }).hash).toBe(runScenario(scenario, tested).hash);
});

test('a file that is no scenario is refused by name', () => {
  const good = drawScenario(1);
  for (const bad of [
    '',
    'null',
    '[]',
    '{}',
    JSON.stringify({ ...good, queueDepth: 0 }),
    JSON.stringify({ ...good, requests: 3 }),
    JSON.stringify({ ...good, timing: { ...good.timing, pass: -1 } }),
    JSON.stringify({ ...good, timing: null }),
    JSON.stringify({ ...good, engine: { ...good.engine, blockSize: 0 } }),
    JSON.stringify({ ...good, faults: [{ kind: 'explode', when: { at: 0 } }] }),
  ]) {
    expect(() => parseScenario(bad, 'bad.json'), bad.slice(0, 60)).toThrow(/bad\.json|blockSize/);
  }
});
