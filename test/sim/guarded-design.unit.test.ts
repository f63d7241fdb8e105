/**
 * The guard around designs of the caller's own is not seen by a design that keeps its contract: storms run as they do
 * without it, event for event, whether rows come at the end or as they go, with blocking reads and with loaded KV.
 */

import { expect, test } from 'vitest';
import { guardedDesign } from '../../src/capture/guard/guarded-design.ts';
import { designs } from '../../src/capture/designs.ts';
import { runSeeds } from '../../src/sim/campaign.ts';
import { testedDesignOf } from '../../src/sim/tested-design.ts';

test.each([
  ['deltas', false],
  ['deltas', true],
  ['slot-store', false],
  ['block-store', false],
  ['host-cache', false],
  ['shm-flock', false],
] as const)('%s, with a prefill engine in front: %s', (name, pd) => {
  const bare = testedDesignOf(designs[name]);
  const guarded = { ...bare, design: guardedDesign(designs[name]) };
  const seeds = { from: 1, to: pd ? 101 : 151, pd, twice: false, stopAfter: 0 };
  expect(runSeeds(guarded, seeds)).toEqual(runSeeds(bare, seeds));
});
