/** Every router kernel, baselines too, compiles and binds on Dawn's null backend, for subgroups of every size. */

import { describe, test } from 'vitest';
import { BENCH_SHAPES } from '../../src/cli/kernels/bench-shapes.ts';
import {
  BASELINES,
  baselineKernel,
  copyKernel,
  emptyKernel,
  fillKernel,
} from '../../src/kernels/router/router-baselines.ts';
import type { RoutingFunction } from '../../src/contract/config.ts';
import { routingFunction } from '../../src/kernels/router/routing-function.ts';
import { routerKernel } from '../../src/kernels/router/router-kernels.ts';
import { portableRouter, subgroupRouter, wideRouter } from '../../src/kernels/router/router-variant.ts';
import { nullDevice } from './null-device.ts';

const { validate, expectNotLost } = nullDevice();

const OTHERS: readonly RoutingFunction[] = [
  routingFunction({ numExperts: 16, topK: 2, scoring: 'sparsemixer', jitter: 0.01 }),
  routingFunction({ numExperts: 256, topK: 6, scoring: 'sqrt-softplus', hasSelectionBias: true, renormalize: true }),
  routingFunction({ numExperts: 8, topK: 2, softCap: 30, renormalize: true }),
  routingFunction({ numExperts: 61, topK: 5, scoring: 'topk-sigmoid' }),
  routingFunction({ numExperts: 1024, topK: 32, hasSelectionBias: true, minDenominator: 1e-12, renormalize: true }),
  routingFunction({ numExperts: 160, topK: 6, groups: { count: 8, keep: 3, score: 'max' }, scale: 16 }),
  routingFunction({ numExperts: 30, topK: 4, groups: { count: 5, keep: 2, score: 'top2-sum' } }),
];

describe.each([...BENCH_SHAPES.map(({ router }) => router), ...OTHERS])('$numExperts/$topK $scoring', (router) => {
  test('compiles in every variant', async () => {
    await validate(routerKernel(router, portableRouter(router, true)));
    await validate(routerKernel(router, portableRouter(router, false)));
    await validate(routerKernel(router, wideRouter()));
    for (const sizes of [4, 8, 16, 32, 64, 128].map((size) => [size, size] as const).concat([[8, 32]])) {
      for (const tokens of [1, 2 ** 20]) {
        const variant = subgroupRouter(router, sizes, tokens);
        if (variant !== null) await validate(routerKernel(router, variant));
      }
    }
    for (const name of BASELINES) {
      const baseline = baselineKernel(router, name);
      if (baseline !== null) await validate(baseline.kernel);
    }
  });
});

test('what the bench needs besides compiles', async () => {
  for (const kernel of [fillKernel, copyKernel, emptyKernel]) await validate(kernel);
  expectNotLost();
});
