/** The reference against answers worked out by hand: ties, values that are no numbers, groups, every scoring. */

import { describe, expect, test } from 'vitest';
import { routeRow } from '../../src/kernels/router/reference/router-reference.ts';
import type { RoutingFunction } from '../../src/contract/config.ts';
import { routingFunction } from '../../src/kernels/router/routing-function.ts';

function route(
  logits: readonly number[],
  topK: number,
  options: Partial<RoutingFunction> = {},
  bias: number[] | null = null,
) {
  return routeRow(routingFunction({ numExperts: logits.length, topK, ...options }), logits, bias);
}

const close = (actual: readonly number[], expected: readonly number[]): void => {
  expect(actual.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) expect(actual[i]).toBeCloseTo(value, 12);
};

describe('order', () => {
  test('greater value first, of equals the smaller id', () => {
    expect(route([1, 3, 3, 2, 3], 4).ids).toEqual([1, 2, 4, 3]);
  });

  test('a constant row gives 0 … K − 1', () => {
    expect(route([5, 5, 5, 5], 3).ids).toEqual([0, 1, 2]);
  });

  test('+0 and −0 are one value', () => {
    expect(route([-0, 0, -0, 0], 4).ids).toEqual([0, 1, 2, 3]);
  });

  test('NaN is −∞: the last, and a row of nothing else gives 0 … K − 1', () => {
    expect(route([NaN, -Infinity, -3e38, NaN], 4).ids).toEqual([2, 0, 1, 3]);
    expect(route([NaN, NaN, NaN], 2).ids).toEqual([0, 1]);
  });

  test('+∞ is the first, over any number', () => {
    expect(route([3e38, Infinity, 1, Infinity], 3).ids).toEqual([1, 3, 0]);
  });
});

describe('weights are numbers', () => {
  test.each([
    ['of NaN', [NaN, NaN, NaN, NaN], [0.25, 0.25]],
    ['of −∞', [-Infinity, -Infinity, -Infinity, -Infinity], [0.25, 0.25]],
    ['of +∞', [Infinity, 0, Infinity, 0], [0.5, 0.5]],
  ])('softmax %s', (_, logits, weights) => {
    close(route(logits, 2).weights, weights);
  });

  test('sigmoid of ±∞ and NaN', () => {
    close(route([Infinity, -Infinity, NaN], 3, { scoring: 'sigmoid' }).weights, [1, 0, 0]);
  });
});

describe('scoring', () => {
  const [a, b, c] = [Math.exp(1), Math.exp(0), Math.exp(-1)];

  test('softmax over all, as it is and renormalised', () => {
    close(route([0, 1, -1], 2).weights, [a / (a + b + c), b / (a + b + c)]);
    close(route([0, 1, -1], 2, { renormalize: true }).weights, [a / (a + b), b / (a + b)]);
  });

  test('softmax over the chosen, sigmoid of the chosen', () => {
    close(route([0, 1, -1], 2, { scoring: 'topk-softmax' }).weights, [a / (a + b), b / (a + b)]);
    close(route([0, 1, -1], 1, { scoring: 'topk-sigmoid' }).weights, [1 / (1 + c)]);
  });

  test('sqrt of softplus', () => {
    close(route([0, 2], 2, { scoring: 'sqrt-softplus' }).weights, [
      Math.sqrt(Math.log(1 + Math.exp(2))),
      Math.sqrt(Math.log(2)),
    ]);
  });

  test('a soft cap bounds the logits that are scored', () => {
    const capped = 30 * Math.tanh(100 / 30);
    close(route([100, 0], 2, { softCap: 30, renormalize: true }).weights, [
      1 / (1 + Math.exp(-capped)),
      Math.exp(-capped) / (1 + Math.exp(-capped)),
    ]);
  });

  test('sparse mixer: a share among those within 2ε, those chosen before left out', () => {
    const { ids, weights } = route([10, 9.9, 9.7, 5], 2, { scoring: 'sparsemixer', jitter: 0.01 });
    expect(ids).toEqual([0, 1]);
    // Within 2 % of 10 lies 9.9; within 2 % of 9.9 lies nothing more than 9.9 · 0.98 = 9.702 > 9.7.
    close(weights, [1 / (1 + Math.exp(-0.1)), 1]);
  });

  test('epsilon, floor and scale', () => {
    const options = { scoring: 'sigmoid', renormalize: true } as const;
    close(route([0, 0], 2, { ...options, epsilon: 1, scale: 4 }).weights, [1, 1]);
    close(route([0, 0], 2, { ...options, minDenominator: 2 }).weights, [0.25, 0.25]);
  });
});

describe('selection', () => {
  test('a bias chooses, the score weighs', () => {
    const { ids, weights } = route([0, 2, 0], 1, { scoring: 'sigmoid', hasSelectionBias: true }, [0, -1, 0.5]);
    expect(ids).toEqual([2]);
    close(weights, [0.5]);
  });

  test('groups by their best, and by the sum of their best two', () => {
    const logits = [4, -4, 3, 3, 0, 0];
    const groups = { count: 3, keep: 1 } as const;
    expect(route(logits, 2, { groups: { ...groups, score: 'max' } }).ids).toEqual([0, 1]);
    expect(route(logits, 2, { scoring: 'sigmoid', groups: { ...groups, score: 'top2-sum' } }).ids).toEqual([2, 3]);
  });

  test('of equal groups the first is kept; experts of others are never chosen, whatever is −∞', () => {
    const groups = { count: 2, keep: 1, score: 'max' } as const;
    expect(route([-Infinity, -Infinity, -Infinity, -Infinity], 2, { groups }).ids).toEqual([0, 1]);
    expect(route([-1, -Infinity, -2, -2], 2, { groups }).ids).toEqual([0, 1]);
  });
});
