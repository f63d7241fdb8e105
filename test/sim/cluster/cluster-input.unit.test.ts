/** What no cluster can be is refused: with the value, the limit and what to do. */

import { expect, test } from 'vitest';
import { VirtualCluster } from '../../../src/sim/cluster/cluster.ts';
import { parseFault } from '../../../src/sim/cluster/cluster-fault.ts';
import { DEFAULT_COSTS, parseCosts, quantileAt } from '../../../src/sim/cluster/costs.ts';
import { clusterOptions } from './small-cluster.ts';

type Given = Parameters<typeof clusterOptions>[0];

const REFUSED: readonly (readonly [string, Given, RegExp])[] = [
  ['too many ranks', { numEngines: 2048, tensorParallel: 8 }, /tensor-parallel is 16384; give at most 8192 ranks/],
  ['nodes that engines cannot share', { numEngines: 3 }, /--nodes is 2; give a number that divides the 3 engines/],
  ['a dispatch to nobody', { numEngines: 1, numNodes: 1, dispatch: 'naive' }, /--dispatch is naive; give modular/],
  ['rows of too many engines', { numEngines: 32, dispatch: 'naive' }, /modular with more than 16 engines/],
  ['too many real ranks', { numEngines: 64, realRanks: 'all' }, /--real-ranks is all; give at most 64 ranks/],
  ['a budget below a token each', { maxNumBatchedTokens: 3 }, /tokens is 3; give at least 4, a token for each/],
  [
    'a time-out within a step',
    { collectiveTimeout: 11_000 },
    /timeout is 0\.011; give more than 0\.011 s, which a step/,
  ],
  [
    'more passes than are kept',
    { numEngines: 1024, duration: 1e9 },
    /--duration is 1000s; give at most \d+s with 2048/,
  ],
  ['a fault of no rank', { faults: ['slow-rank:4:2'] }, /--fault is slow-rank:4:2; give a rank below 4/],
  ['a fault of no node', { faults: ['slow-nic:2:2'] }, /--fault is slow-nic:2:2; give a node below 2/],
  ['a fault behind the end', { faults: ['dead-rank:0@1s'] }, /give a time before the end of --duration, 0\.2s/],
  ['a lock that nobody takes', { faults: ['held-lock:0@1ms+1s'] }, /--design shm-flock with it: deltas takes no lock/],
  ['a NIC without a wire', { numNodes: 1, faults: ['slow-nic:0:2'] }, /--nodes 2 or more with it/],
];

for (const [what, given, message] of REFUSED) {
  test(`${what} is refused`, () => {
    expect(() => new VirtualCluster(clusterOptions(given))).toThrow(message);
  });
}

test('a fault of another form is refused with the forms there are', () => {
  for (const text of ['slow-rank:1', 'slow-rank:1:0', 'dead-rank:1@5', 'held-lock:0@1s', 'late:1:2', '']) {
    expect(() => parseFault(text), text).toThrow(/--fault is .*; give slow-rank:RANK:FACTOR.*times as 2s or 500ms/);
  }
  expect(parseFault('held-lock:1@500ms+1.5s')).toMatchObject({ node: 1, at: 500_000, duration: 1_500_000 });
});

const file = (costs: unknown): string => JSON.stringify({ costs });

test('a file of costs of another form is refused, with the field', () => {
  const { pass } = DEFAULT_COSTS;
  const wrong: readonly (readonly [string, RegExp])[] = [
    ['{', /^c\.json: .*; make one with "bench --lockstep --ranks 1 --json FILE"/],
    ['[]', /holds no costs/],
    [file(null), /holds no costs/],
    [file({ pass, source: 1 }), /"source" is no text/],
    [file({ pass, lockUs: -1 }), /"lockUs" is -1, not a number ≥ 0/],
    [file({ pass, readGBPerS: 0 }), /"readGBPerS" is 0: nothing would ever arrive/],
    [file({ pass, lookUs: 1 }), /"lookUs" is no cost/],
    [file({ pass: { ...pass, restUs: [3, 2] } }), /"restUs" is not a list of numbers that rise, at 2/],
    [file({ pass: { ...pass, restUs: [3] } }), /"restUs" has 1 quantiles, not 2 to 10000/],
    [file({ pass: { ...pass, restUs: 3 } }), /"restUs" or "messageUs" is no list/],
  ];
  for (const [text, message] of wrong) expect(() => parseCosts(text, 'c.json'), text).toThrow(message);
  expect(parseCosts(file({ pass: { fixedUs: 1 } }), 'c.json').pass).toEqual({ ...pass, fixedUs: 1 });
});

test('a share of a distribution lies straight between its quantiles', () => {
  const quantiles = [0, 10, 40];
  expect([0, 0.25, 0.5, 0.75, 1].map((share) => quantileAt(quantiles, share))).toEqual([0, 5, 10, 25, 40]);
});
