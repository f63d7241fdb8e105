/** A closed loop keeps a number of requests in flight; an open loop goes by the clock and by nothing else. */

import { expect, test } from 'vitest';
import { Arrivals } from '../../src/workload/arrivals.ts';
import { userError, workloadOf } from './helpers.ts';

test('closed: fills up to the concurrency, whatever the time', () => {
  const arrivals = new Arrivals(workloadOf([0, 1000, 2000, 3000, 4000]), { kind: 'closed', concurrency: 3 });
  expect(arrivals.numDue(0, 0, 0)).toBe(3);
  expect(arrivals.numDue(3, 0, 3)).toBe(0);
  expect(arrivals.numDue(3, 0, 2)).toBe(1);
  expect(arrivals.numDue(3, 1e9, 3)).toBe(0);
  expect(arrivals.numDue(3, 0, 0)).toBe(2);
  expect(arrivals.numDue(5, 0, 0)).toBe(0);
  expect(arrivals.numDue(0, 0, 7)).toBe(0);
  expect(arrivals.nextMs(0)).toBeNull();
  expect(arrivals.order).toEqual([0, 1, 2, 3, 4]);
});

test('open: everything whose time has come is due, however many are in flight', () => {
  const arrivals = new Arrivals(workloadOf([0, 10, 10, 25]), { kind: 'open' });
  expect(arrivals.numDue(0, 0, 0)).toBe(1);
  expect(arrivals.numDue(1, 9.9, 1)).toBe(0);
  expect(arrivals.numDue(1, 10, 1000)).toBe(2);
  expect(arrivals.numDue(0, 1e9, 0)).toBe(4);
  expect([0, 1, 2, 3, 4].map((numSubmitted) => arrivals.nextMs(numSubmitted))).toEqual([0, 10, 10, 25, null]);
});

test('open: a trace that is out of order is submitted by time, equal times by place', () => {
  const workload = workloadOf([5, 0, 5, 3]);
  const arrivals = new Arrivals(workload, { kind: 'open' });
  expect(arrivals.order).toEqual([1, 3, 0, 2]);
  expect(arrivals.numDue(0, 4, 0)).toBe(2);
  expect(arrivals.nextMs(2)).toBe(5);
  expect(new Arrivals(workload, { kind: 'closed', concurrency: 1 }).order).toEqual([0, 1, 2, 3]);
});

test.each([{ kind: 'closed', concurrency: 2 } as const, { kind: 'open' } as const])(
  'a driver that follows $kind submits every request once',
  (mode) => {
    const arrivals = new Arrivals(workloadOf([0, 3, 3, 3, 9]), mode);
    const submitted: number[] = [];
    let inFlight = 0;
    for (let elapsedMs = 0; elapsedMs < 20; elapsedMs++) {
      for (let due = arrivals.numDue(submitted.length, elapsedMs, inFlight); due > 0; due--) {
        submitted.push(arrivals.order[submitted.length]!);
        inFlight++;
      }
      if (mode.kind === 'closed') expect(inFlight).toBeLessThanOrEqual(mode.concurrency);
      if (inFlight > 0) inFlight--;
    }
    expect(submitted).toEqual([0, 1, 2, 3, 4]);
  },
);

test.each([0, -1, 1.5, Number.NaN, Infinity])('the concurrency %s is refused by name', (concurrency) => {
  expect(userError(() => new Arrivals(workloadOf([0]), { kind: 'closed', concurrency }))).toBe(
    `BAD_VALUE concurrency is ${concurrency}; give a whole number ≥ 1`,
  );
});
