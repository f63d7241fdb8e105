// The plan of a bench: every cell in every repeat, each design's runs beside an `off` run of their own, the same plan
// for the same seed.

import { expect, test } from 'vitest';
import { LabelledWorkloads } from '../../src/cli/bench/labelled-workloads.ts';
import type { Cell, PlannedRun } from '../../src/cli/bench/plan.ts';
import { planCells, planRepeat } from '../../src/cli/bench/plan.ts';
import { findWorkload } from '../../src/workload/workloads.ts';

function planRuns(cells: readonly Cell[], repeats: number, seed: number): PlannedRun[] {
  return Array.from({ length: repeats }, (_, repeat) => planRepeat({ cells, open: cells, repeat, seed })).flat(2);
}

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

test('a settled cell has no more runs, nor has a design whose cells are all settled', () => {
  const cells = planCells(['shm-flock', 'deltas'], [0, 1]);
  const open = cells.filter(({ design, optInShare }) => design === 'deltas' && optInShare === 1);
  const groups = planRepeat({ cells, open, repeat: 3, seed: 9 });
  expect(groups).toHaveLength(1);
  expect(new Set(groups[0]!.map(({ cell }) => `${cell.design} ${cell.optInShare}`))).toEqual(
    new Set(['off 0', 'deltas 1']),
  );
  expect(planRepeat({ cells, open: [], repeat: 3, seed: 9 })).toEqual([]);
});

test('each cell runs before its off run in about half of the repeats', () => {
  const cells = planCells(['shm-flock', 'deltas'], [0, 1]);
  const isFirst = new Map<Cell, number>();
  for (let repeat = 0; repeat < 400; repeat++) {
    for (const group of planRepeat({ cells, open: cells, repeat, seed: 9 })) {
      const off = group.findIndex(({ cell }) => cell.design === 'off');
      for (const { cell } of group.slice(0, off)) isFirst.set(cell, (isFirst.get(cell) ?? 0) + 1);
    }
  }
  // A fair coin leaves 160 to 240 once in 15,000 tries.
  expect([...isFirst.values()].filter((count) => count > 160 && count < 240)).toHaveLength(4);
});

test('the seed decides the order, nothing else does', () => {
  const cells = planCells(['shm-flock', 'deltas'], [0, 1]);
  expect(planRuns(cells, 5, 1)).toEqual(planRuns(cells, 5, 1));
  expect(planRuns(cells, 5, 1)).not.toEqual(planRuns(cells, 5, 2));
});

test('no design gets a label twice, and designs share labels within a repeat', () => {
  for (const designs of [['deltas'], ['shm-flock', 'deltas', 'host-cache', 'slot-store']] as const) {
    const runs = planRuns(planCells(designs, [0, 0.1, 1]), 3, 9);
    const seen = new Set(runs.map(({ cell, label }) => `${cell.design} ${label}`));
    expect(seen.size).toBe(runs.length);
    const labelsOf = (repeat: number): Set<number> =>
      new Set(runs.flatMap((run) => (run.repeat === repeat ? [run.label] : [])));
    expect([labelsOf(0).size, new Set([...labelsOf(0), ...labelsOf(1)]).size]).toEqual(
      designs.length > 3 ? [4, 8] : [3, 6],
    );
  }
});

test('a label is a workload of its own tokens, the same for all that share it', () => {
  const workload = findWorkload('chat').generate({ seed: 1, vocabSize: 50, maxNumBatchedTokens: 64, requests: 3 });
  const labelled = new LabelledWorkloads(workload, 50, false);
  const run = { ...planRuns(planCells(['deltas'], [1]), 1, 0)[0]!, label: 7 };
  const [first, again, other] = [labelled.of(run), labelled.of(run), labelled.of({ ...run, label: 8 })];
  expect(again.requests[0]!.promptTokenIds).toBe(first.requests[0]!.promptTokenIds);
  const token = workload.requests[0]!.promptTokenIds[0]!;
  expect(first.requests[0]!.promptTokenIds[0]).toBe((token + 7) % 50);
  expect(other.requests[0]!.promptTokenIds[0]).toBe((token + 8) % 50);
});
