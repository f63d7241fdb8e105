/** Exactly round(share · n) requests opt in, which ones is fixed by the seed, and they are spread over the workload. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { optIn } from '../../src/workload/opt-in.ts';
import { userError, workloadOf } from './helpers.ts';

const hundred = workloadOf(Array.from({ length: 100 }, () => 0));

function chosen(optedIn: readonly boolean[]): number[] {
  return optedIn.flatMap((isIn, place) => (isIn ? [place] : []));
}

test('the share is exact for every share, number of requests and seed', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.nat(200),
      fc.maxSafeNat(),
      (share, numRequests, seed) => {
        const workload = workloadOf(Array.from({ length: numRequests }, () => 0));
        const optedIn = optIn(workload, share, seed);
        expect(optedIn).toHaveLength(numRequests);
        expect(chosen(optedIn)).toHaveLength(Math.round(share * numRequests));
      },
    ),
  );
});

test('the same seed chooses the same requests, another seed others', () => {
  expect(optIn(hundred, 0.1, 5)).toEqual(optIn(hundred, 0.1, 5));
  expect(optIn(hundred, 0.1, 6)).not.toEqual(optIn(hundred, 0.1, 5));
});

test('the chosen ones are not all at the front', () => {
  expect(Math.max(...chosen(optIn(hundred, 0.1, 5)))).toBeGreaterThan(50);
});

test('a larger share keeps those whom a smaller one chose', () => {
  const larger = new Set(chosen(optIn(hundred, 0.5, 5)));
  expect(chosen(optIn(hundred, 0.1, 5)).every((place) => larger.has(place))).toBe(true);
});

test.each([-0.1, 1.1, 100, Number.NaN, Infinity])('the share %s is refused by name', (share) => {
  expect(userError(() => optIn(hundred, share, 0))).toBe(`BAD_VALUE share is ${share}; give a number from 0 to 1`);
});
