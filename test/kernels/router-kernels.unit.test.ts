/** What a routing function may be, and which kernel serves it where. */

import { describe, expect, test } from 'vitest';
import { checkSelectionBias, routingFunction, selectsByLogit } from '../../src/kernels/router/routing-function.ts';
import { chooseRouter, routerVariants, subgroupRouter } from '../../src/kernels/router/router-variant.ts';

const gpu = { isSoftware: false, subgroupSizes: [32, 32] } as const;

describe('routingFunction refuses', () => {
  test.each([
    ['no expert', { numExperts: 0, topK: 1 }, /numExperts is 0/],
    ['more experts than an id has bits for', { numExperts: 1025, topK: 1 }, /\[1, 1024\]/],
    ['K over E', { numExperts: 4, topK: 5 }, /topK is 5; give a whole number in \[1, 4\]/],
    ['K over 32', { numExperts: 64, topK: 33 }, /\[1, 32\]/],
    [
      'groups that do not divide',
      { numExperts: 10, topK: 1, groups: { count: 4, keep: 1, score: 'max' } },
      /divisor of/,
    ],
    [
      'K over the kept experts',
      { numExperts: 8, topK: 5, groups: { count: 4, keep: 2, score: 'max' } },
      /at most the 4/,
    ],
    [
      'more groups kept than there are',
      { numExperts: 8, topK: 1, groups: { count: 4, keep: 5, score: 'max' } },
      /keep|Groups/,
    ],
    [
      'pairs of groups of one',
      { numExperts: 8, topK: 1, groups: { count: 8, keep: 2, score: 'top2-sum' } },
      /two experts/,
    ],
    ['an unknown scoring', { numExperts: 8, topK: 1, scoring: 'hardmax' as never }, /unknown scoring "hardmax"/],
    ['a scale that is no number', { numExperts: 8, topK: 1, scale: Number.NaN }, /scale is NaN/],
    [
      'a bias for a function without scores',
      { numExperts: 8, topK: 1, scoring: 'topk-softmax', hasSelectionBias: true },
      /bias/,
    ],
  ] as const)('%s', (_, given, message) => {
    expect(() => routingFunction(given)).toThrow(message);
  });

  test('a bias of another length, or not finite', () => {
    const router = routingFunction({ numExperts: 4, topK: 1, scoring: 'sigmoid', hasSelectionBias: true });
    expect(() => checkSelectionBias(router, new Float32Array(3))).toThrow(/is 3; give 4/);
    expect(() => checkSelectionBias(router, Float32Array.of(0, 1, Infinity, 0))).toThrow(
      /selection bias 2 is Infinity/,
    );
    expect(() => checkSelectionBias(router, new Float32Array(4))).not.toThrow();
  });
});

test('only a bias, or a sum of scores, makes selection look at anything but logits', () => {
  const base = { numExperts: 8, topK: 2, scoring: 'sigmoid' } as const;
  expect(selectsByLogit(routingFunction(base))).toBe(true);
  expect(selectsByLogit(routingFunction({ ...base, groups: { count: 2, keep: 1, score: 'max' } }))).toBe(true);
  expect(selectsByLogit(routingFunction({ ...base, hasSelectionBias: true }))).toBe(false);
  expect(selectsByLogit(routingFunction({ ...base, groups: { count: 2, keep: 1, score: 'top2-sum' } }))).toBe(false);
});

describe('the variant', () => {
  const router = routingFunction({ numExperts: 128, topK: 8 });
  const grouped = routingFunction({ numExperts: 256, topK: 8, groups: { count: 8, keep: 4, score: 'max' } });

  test('is an invocation a row on software, but for many wide rows', () => {
    const software = { isSoftware: true, subgroupSizes: [4, 4] } as const;
    const wide = routingFunction({ numExperts: 256, topK: 8 });
    expect(chooseRouter(router, software, 2048).algorithm).toBe('portable');
    expect(chooseRouter(wide, software, 256).algorithm).toBe('portable');
    expect(chooseRouter(wide, software, 512)).toMatchObject({ algorithm: 'subgroup', lanes: 4 });
    expect(chooseRouter(wide, { ...software, subgroupSizes: null }, 512).algorithm).toBe('portable');
  });

  test('shares a subgroup among rows on a GPU', () => {
    expect(chooseRouter(router, gpu, 256)).toMatchObject({ algorithm: 'subgroup', lanes: 8 });
    expect(chooseRouter(routingFunction({ numExperts: 32, topK: 4 }), gpu, 256)).toMatchObject({ lanes: 4 });
    expect(chooseRouter(grouped, gpu, 256)).toMatchObject({ algorithm: 'subgroup', lanes: 8 });
  });

  test('is a workgroup a row for wide rows without subgroups, an invocation a row for others', () => {
    const none = { isSoftware: false, subgroupSizes: null };
    expect(chooseRouter(routingFunction({ numExperts: 896, topK: 16 }), none, 256).algorithm).toBe('wide');
    expect(chooseRouter(router, none, 256).algorithm).toBe('portable');
  });

  test.each([4, 8, 16, 32, 64, 128])('fits subgroups of %i: lanes divide them, and hold K', (size) => {
    for (const numExperts of [2, 8, 32, 60, 128, 896, 1024]) {
      for (const topK of [1, 2, 8, 32].filter((k) => k <= numExperts)) {
        const variant = subgroupRouter(routingFunction({ numExperts, topK }), [size, size], 256);
        if (variant === null) throw new Error('no variant');
        expect(size % variant.lanes).toBe(0);
        expect(variant.lanes).toBeGreaterThanOrEqual(Math.min(topK, size, 32));
        expect(variant.list * variant.lanes).toBeGreaterThanOrEqual(topK);
      }
    }
  });

  test('has less in flight in large launches where biases take registers', () => {
    const biased = { scoring: 'sigmoid', hasSelectionBias: true } as const;
    const deepseek = routingFunction({
      ...biased,
      numExperts: 256,
      topK: 8,
      groups: { count: 8, keep: 4, score: 'top2-sum' },
    });
    expect(chooseRouter(deepseek, gpu, 8192)).toMatchObject({ lanes: 8, quads: 8 });
    expect(chooseRouter(deepseek, gpu, 65_536)).toMatchObject({ lanes: 8, quads: 4 });
    const all = routerVariants(deepseek, gpu, 256);
    expect(all.map((v) => v.algorithm)).toEqual(['subgroup', 'portable', 'wide', 'subgroup']);
  });

  test('with groups needs a lane for each', () => {
    expect(subgroupRouter(grouped, [4, 4], 256)).toBe(null);
    expect(routerVariants(grouped, { isSoftware: true, subgroupSizes: [4, 4] }, 256).map((v) => v.algorithm)).toEqual([
      'portable',
      'wide',
    ]);
  });
});
