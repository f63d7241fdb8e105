// The plan of a bench: every cell in every repeat, each design's runs beside an `off` run of their own, the same plan for the same seed.

import { expect, test } from 'vitest';
import { planCells, planRuns } from '../../src/cli/bench/plan.ts';

test('off is always there, once, and other designs at every share', () => {
  expect(planCells(['deltas', 'deltas'], [0, 1, 1])).toEqual([
    { design: 'off', optInShare: 0 },
    { design: 'deltas', optInShare: 0 },
    { design: 'deltas', optInShare: 1 },
  ]);
  expect(planCells([], [0, 1])).toEqual([{ design: 'off', optInShare: 0 }]);
});

test('each group is one design and one off run, back to back, in every repeat', () => {
  const cells = planCells(['shm-flock', 'deltas'], [0, 0.1, 1]);
  const runs = planRuns(cells, 4, 9);
  expect(runs).toHaveLength(4 * 2 * 4);
  for (let at = 0; at < runs.length; at += 4) {
    const group = runs.slice(at, at + 4);
    expect(new Set(group.map((run) => run.group)).size).toBe(1);
    expect(group.filter((run) => run.cell.design === 'off')).toHaveLength(1);
    expect(new Set(group.map((run) => run.cell.design)).size).toBe(2);
    expect(new Set(group.map((run) => run.cell.optInShare)).size).toBe(3);
  }
  expect(new Set(runs.map((run) => run.group)).size).toBe(8);
});

test('the seed decides the order, nothing else does', () => {
  const cells = planCells(['shm-flock', 'deltas'], [0, 1]);
  expect(planRuns(cells, 5, 1)).toEqual(planRuns(cells, 5, 1));
  expect(planRuns(cells, 5, 1)).not.toEqual(planRuns(cells, 5, 2));
});
