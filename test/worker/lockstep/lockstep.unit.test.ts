// Ranks in lockstep: no pass is released before every rank has run it, a rank that waits in vain ends the group, and
// the report names which rank waits for which, since when, holding what.

import { describe, expect, test } from 'vitest';
import { LockstepBarrier } from '../../../src/worker/pipeline/lockstep/lockstep-barrier.ts';
import { LockstepGroup } from '../../../src/worker/pipeline/lockstep/lockstep-group.ts';
import { PassTimes } from '../../../src/worker/pipeline/lockstep/pass-times.ts';
import { RankGrid } from '../../../src/worker/pipeline/lockstep/rank-grid.ts';
import { stallReport } from '../../../src/worker/pipeline/lockstep/stall-report.ts';
import { groupOf, newLockstep, watchedRows } from '../../../src/worker/thread/shared-lockstep.ts';
import { random } from '../../../src/workload/random.ts';

function barrierOf(numRanks: number): LockstepBarrier {
  return new LockstepBarrier(new Int32Array(LockstepBarrier.numWords(numRanks)), numRanks);
}

function newGroup(dataParallel: number, tensorParallel: number): LockstepGroup {
  const grid = new RankGrid({ dataParallel, pipelineParallel: 1, tensorParallel });
  return new LockstepGroup(grid, new Int32Array(LockstepGroup.numWords(grid)));
}

describe('the barrier', () => {
  test('releases a pass with the arrival of its last rank, whichever that is', () => {
    const barrier = barrierOf(4);
    for (let pass = 0; pass < 50; pass++) {
      const order = random(pass, 'arrivals').permutation(4);
      for (const [i, rank] of [...order].entries()) {
        expect(barrier.outcomeOf(pass)).toBe('waiting');
        expect(new Set(barrier.absentRanks)).toEqual(new Set(order.slice(i)));
        expect(barrier.arrive(rank)).toEqual({ pass, isLast: i === 3 });
      }
      expect(barrier.outcomeOf(pass)).toBe('released');
      expect(barrier.numReleased).toBe(pass + 1);
    }
  });

  test('refuses a rank that ends its next pass before the others have ended this one', () => {
    const barrier = barrierOf(2);
    barrier.arrive(0);
    expect(() => barrier.arrive(0)).toThrow('rank 0 ends pass 1, the group runs 0');
  });

  test('that is given up keeps what it had released, and tells every rank that waits', () => {
    const barrier = barrierOf(2);
    barrier.arrive(0);
    barrier.arrive(1);
    barrier.arrive(1);
    barrier.giveUp();
    expect([barrier.outcomeOf(0), barrier.outcomeOf(1)]).toEqual(['released', 'given-up']);
  });

  test('of one rank never waits', () => {
    const barrier = barrierOf(1);
    expect([barrier.arrive(0).isLast, barrier.arrive(0).isLast]).toEqual([true, true]);
  });
});

test('ranks are numbered over engines, stages and tensor-parallel ranks, in vLLM’s order, and back', () => {
  const grid = new RankGrid({ dataParallel: 2, pipelineParallel: 3, tensorParallel: 4 });
  expect([grid.numRanks, grid.ranksPerEngine]).toEqual([24, 12]);
  expect(grid.rankOf({ engine: 1, stage: 2, tensorRank: 3 })).toBe(23);
  expect(grid.rankOf({ engine: 1, stage: 0, tensorRank: 0 })).toBe(12);
  for (let rank = 0; rank < 24; rank++) expect(grid.rankOf(grid.placeOf(rank))).toBe(rank);
  expect(grid.nameOf(17)).toBe('rank 17 (engine 1, stage 1, tensor rank 1)');
  const sizes = { dataParallel: 1, pipelineParallel: 0, tensorParallel: 4 };
  expect(() => new RankGrid(sizes)).toThrow('pipelineParallel is 0; give ranks ≥ 1');
});

describe('the report of a group that stands still', () => {
  test('says which ranks wait for which, since when, doing and holding what', () => {
    const group = newGroup(2, 2);
    for (const [rank, ms] of [
      [0, 900],
      [1, 1000],
      [3, 1200],
    ] as const) {
      group.passes.arrive(rank);
      group.board.note(rank, 'barrier', 40, ms);
    }
    group.board.note(2, 'results', 39, 500);
    group.board.noteLock(2, 'waits', 600);
    group.board.noteLock(group.engineActor(1), 'holds', 400);
    expect(stallReport(group, group.passes, 5900).split('\n')).toEqual([
      'ranks 0, 1, 3 wait at the barrier, since 5.0 s, for rank 2',
      '  rank 2 (engine 1, tensor rank 0): brings the results of step 39, since 5.4 s, waits for the lock, since 5.3 s',
      '  the scheduler of engine 1: holds the lock, since 5.5 s',
    ]);
  });

  test('forgets a lock that was given back, and names a rank without a step', () => {
    const group = newGroup(1, 2);
    group.passes.arrive(1);
    group.board.note(1, 'barrier', 3, 0);
    group.board.noteLock(0, 'holds', 1);
    group.board.noteLock(0, 'none', 2);
    expect(stallReport(group, group.passes, 100)).toBe(
      'rank 1 waits at the barrier, since 0.1 s, for rank 0\n  rank 0 (tensor rank 0): has no step, since 0.1 s',
    );
  });

  test('tells a rank that has not seen its release from one that waits', () => {
    const group = newGroup(1, 2);
    for (const rank of [0, 1, 0]) group.passes.arrive(rank);
    group.board.note(0, 'barrier', 8, 90);
    group.board.note(1, 'barrier', 7, 50);
    expect(stallReport(group, group.passes, 150)).toContain(
      'rank 1 (tensor rank 1): stands still behind step 7, which all ranks have run, since 0.1 s',
    );
  });

  test('of a thousand ranks is short', () => {
    const group = newGroup(128, 8);
    for (let rank = 0; rank < 1024; rank += 3) group.passes.arrive(rank);
    const lines = stallReport(group, group.passes, 0).split('\n');
    expect(lines).toHaveLength(18);
    expect(lines[17]).toBe('  and 666 more');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(300);
  });
});

test('the lock of shared rows shows on the board, for the rank or the scheduler that takes it', () => {
  const grid = new RankGrid({ dataParallel: 2, pipelineParallel: 1, tensorParallel: 2 });
  const lockstep = { ...newLockstep(grid, { collectiveTimeoutMs: 1000 }), engine: 1 };
  const { board } = groupOf(lockstep, 2);
  const seen: string[] = [];
  for (const [rank, actor] of [
    [1, 3],
    [null, 5],
  ] as const) {
    const look = (): void => void seen.push(board.stateOf(actor).lock);
    const rows = { rows: new Int32Array(1), lock: look, unlock: look, close: () => {} };
    const watched = watchedRows(rows, { lockstep, numRanks: 2 }, rank);
    watched.lock();
    look();
    watched.unlock();
    look();
  }
  expect(seen).toEqual(['waits', 'holds', 'holds', 'none', 'waits', 'holds', 'holds', 'none']);
});

test('a step lasts from its arrival in the rank, or the release before it if that is later, until its release', () => {
  const times = new PassTimes();
  times.add({ numTokens: 3, acceptedAt: 10, arrivedAt: 17, releasedAt: 20, isLast: false });
  times.add({ numTokens: 2, acceptedAt: 12, arrivedAt: 29, releasedAt: 29, isLast: true });
  times.add({ numTokens: 1, acceptedAt: 50, arrivedAt: 54, releasedAt: 58, isLast: false });
  expect(times.take()).toEqual({ stepMs: [10, 9, 8], waitMs: [3, 0, 4], numTokens: [3, 2, 1], numLast: 1 });
  expect(times.take()).toEqual({ stepMs: [], waitMs: [], numTokens: [], numLast: 0 });
});
