/** Two requests, every order of what can happen to them, counted: nothing is left to the luck of a draw. */

import { expect, test } from 'vitest';
import { exploreOrders } from './small-worlds.ts';
import { smallWorlds, type SmallWorld } from './small-world-scenarios.ts';
import { findTestedDesign } from '../../src/sim/mutants/mutants.ts';
import type { TestedDesign } from '../../src/sim/tested-design.ts';
import { testedDesignByName, testedDesignNames } from '../../src/sim/tested-design.ts';

/** A design that blocks waits for the device more often; one that hits nothing takes another step. */
const NUM_ORDERS: Readonly<Record<string, number>> = { 'shm-flock': 9149, 'deltas/recompute': 3584 };

/** Orders of all worlds together. */
function explore(worlds: readonly SmallWorld[], tested: TestedDesign): number {
  let numOrders = 0;
  for (const { name, scenario } of worlds) {
    const result = exploreOrders(scenario, tested, { mostOrders: 50_000, mapsWait: false });
    expect(result.violation, `${name}, choices ${result.choices.join(' ')}`).toBeNull();
    expect(result.isComplete, name).toBe(true);
    numOrders += result.numOrders;
  }
  return numOrders;
}

for (const name of testedDesignNames) {
  test(`${name}: one step in flight, every pair of events, every order`, () => {
    const numOrders = explore(smallWorlds(1, 2), testedDesignByName(name));
    expect(numOrders).toBe(NUM_ORDERS[name] ?? 3449);
  });
}

test('deltas: two steps in flight, every event, every order', () => {
  expect(explore(smallWorlds(2, 1), testedDesignByName('deltas'))).toBe(21_870);
});

test('a defect is found where there is one', () => {
  for (const name of ['mutant/appended-twice', 'mutant/stale-after-reset', 'mutant/double-free']) {
    const tested = findTestedDesign(name);
    const found = [...smallWorlds(1, 2), ...smallWorlds(2, 1)].some(
      ({ scenario }) => exploreOrders(scenario, tested, { mostOrders: 2000, mapsWait: false }).violation !== null,
    );
    expect(found, name).toBe(true);
  }
});
