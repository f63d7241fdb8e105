/** The generator is PractRand's sfc32, and a stream depends on its seed and its name alone (L10). */

import { expect, test } from 'vitest';
import { lengthAround } from '../../src/workload/lengths.ts';
import { Random, random } from '../../src/workload/random.ts';
import { userError } from './helpers.ts';

function draw(stream: Random, count: number): number[] {
  return Array.from({ length: count }, () => stream.nextUint32());
}

test('the numbers are those of PractRand’s sfc32 seeded with the words 0, 2, 1', () => {
  expect(draw(new Random(0, 2, 1), 8)).toEqual([
    0x03b8_0bb8, 0xa87d_bc7e, 0x1787_178c, 0x4c7b_7234, 0xc65d_ade2, 0x2c69_2349, 0xf52c_2153, 0xdf09_8072,
  ]);
});

test('a seed and a name fix a stream; another seed or another name is another stream', () => {
  const numbers = draw(random(7, 'chat/lengths'), 4);
  expect(draw(random(7, 'chat/lengths'), 4)).toEqual(numbers);
  for (const other of [
    random(8, 'chat/lengths'),
    random(7, 'chat/turns'),
    random(7 + 2 ** 32, 'chat/lengths'),
    random(7, ''),
  ]) {
    expect(draw(other, 4)).not.toEqual(numbers);
  }
});

test('below(bound) reaches every value and stays below the bound, up to 2^32', () => {
  const stream = random(0, 'below');
  const counts = new Uint32Array(10);
  for (let count = 0; count < 10_000; count++) {
    const value = stream.below(10);
    counts[value] = counts[value]! + 1;
  }
  expect(counts.reduce((sum, count) => sum + count)).toBe(10_000);
  expect(Math.min(...counts)).toBeGreaterThan(850);
  for (let count = 0; count < 1000; count++) {
    const value = stream.below(2 ** 32);
    expect(Number.isInteger(value) && value < 2 ** 32).toBe(true);
    expect(stream.below(1)).toBe(0);
  }
});

test('a permutation holds every place once', () => {
  const order = random(3, 'order').permutation(1000);
  expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, place) => place));
  expect([...order]).not.toEqual([...order].sort((a, b) => a - b));
});

test('drawn lengths have their median, and none is outside median / 2^doublings … median · 2^doublings', () => {
  const stream = random(1, 'lengths');
  const lengths = Array.from({ length: 4001 }, () => lengthAround(stream, 100, 2)).sort((a, b) => a - b);
  expect(lengths[2000]).toBeGreaterThan(93);
  expect(lengths[2000]).toBeLessThan(107);
  expect(lengths[0]).toBeGreaterThanOrEqual(25);
  expect(lengths[4000]).toBeLessThanOrEqual(400);
  expect(lengths[4000]).toBeGreaterThan(250);
  expect(lengthAround(stream, 0.001, 2)).toBe(1);
});

test.each([-1, 1.5, Number.NaN, Infinity, 2 ** 53])('the seed %s is refused by name', (seed) => {
  expect(userError(() => random(seed, 'any'))).toBe(`BAD_VALUE seed is ${seed}; give a whole number ≥ 0`);
});
