/** The networks by which lanes find a row's best keys, run on arrays: the places of the keys, and what was left out. */

import { describe, expect, test } from 'vitest';
import type { LaneOps } from '../../src/kernels/router/lane-network.ts';
import { mergeLists, rankAcrossLanes, rowLayout, sortValues } from '../../src/kernels/router/lane-network.ts';
import { randomNumbers } from './harness.ts';

/** A number for each lane. */
type Lanes = readonly number[];

function bitsOf(value: number): number {
  return value.toString(2).replaceAll('0', '').length;
}

const ARRAYS: LaneOps<Lanes> = {
  max: (a, b) => a.map((value, lane) => Math.max(value, b[lane]!)),
  min: (a, b) => a.map((value, lane) => Math.min(value, b[lane]!)),
  exchange: (a, mask) => a.map((_, lane) => a[lane ^ mask]!),
  lesserIfOdd: (mask, a, b) =>
    a.map((value, lane) => (bitsOf(lane & mask) % 2 === 1 ? Math.min(value, b[lane]!) : Math.max(value, b[lane]!))),
};

const descending = (a: number, b: number): number => b - a;

/** `count` different numbers for each of `lanes` lanes. */
function shuffled(lanes: number, count: number, random: (below: number) => number): number[][] {
  const all = Array.from({ length: lanes * count }, (_, i) => i);
  for (let i = all.length - 1; i > 0; i--) {
    const j = random(i + 1);
    [all[i], all[j]] = [all[j]!, all[i]!];
  }
  return Array.from({ length: count }, (_, i) => all.slice(i * lanes, (i + 1) * lanes));
}

const GREATEST_LEFT = (dropped: readonly Lanes[], lane: number): number =>
  Math.max(-1, ...dropped.map((d) => d[lane]!));

describe.each([1, 2, 4, 8, 16, 32])('lists of %i', (length) => {
  test.each([4, 8, 12, 16, 20, 24, 28, 32])('the best of %i keys of a lane, and the best that is left out', (count) => {
    const random = randomNumbers(count);
    for (let round = 0; round < 100; round++) {
      const keys = shuffled(2, count, random);
      const { list, dropped } = sortValues(ARRAYS, keys, length);
      for (const lane of [0, 1]) {
        const sorted = keys.map((key) => key[lane]!).sort(descending);
        const found = list.filter((key) => key !== null).map((key) => key[lane]!);
        expect(found).toEqual(sorted.slice(0, length));
        expect(GREATEST_LEFT(dropped, lane)).toBe(sorted[length] ?? -1);
      }
    }
  });

  test('two lists make one', () => {
    const random = randomNumbers(length);
    for (let round = 0; round < 100; round++) {
      const keys = shuffled(1, 24, random);
      const [a, b] = [keys.slice(0, 12), keys.slice(12)].map((half) => sortValues(ARRAYS, half, length));
      const { list, dropped } = mergeLists(ARRAYS, a!, b!, length);
      const sorted = keys.map((key) => key[0]!).sort(descending);
      expect(list.filter((key) => key !== null).map((key) => key[0]!)).toEqual(sorted.slice(0, length));
      expect(GREATEST_LEFT(dropped, 0)).toBe(sorted[length] ?? -1);
    }
  });
});

const POWERS = [1, 2, 4, 8, 16, 32];
const ROWS = POWERS.flatMap((lanes) =>
  POWERS.flatMap((width) =>
    POWERS.filter((length) => length <= width && length * lanes >= width).map((length) => ({ lanes, width, length })),
  ),
);

test.each(ROWS)('the $width best of $lanes lanes with lists of $length', ({ lanes, width, length }) => {
  const random = randomNumbers(lanes * 1000 + width);
  const layout = rowLayout(lanes, width);
  for (let round = 0; round < 20; round++) {
    const keys = shuffled(lanes, length, random);
    const lists = Array.from({ length: lanes }, (_, lane) => keys.map((key) => key[lane]!).sort(descending));
    const own = Array.from({ length }, (_, i) => lists.map((list) => list[i]!));
    const { keys: ranked, dropped } = rankAcrossLanes(ARRAYS, own, lanes, width);
    const sorted = keys.flat().sort(descending);
    expect(ranked.length).toBe(layout.slots);
    for (let lane = 0; lane < lanes; lane++) {
      const first = (lane % layout.lanes) * layout.slots;
      expect(ranked.map((key) => key[lane])).toEqual(sorted.slice(first, first + layout.slots));
    }
    const left = Math.max(-1, ...Array.from({ length: lanes }, (_, lane) => GREATEST_LEFT(dropped, lane)));
    expect(left).toBe(sorted[width] ?? -1);
  }
});
