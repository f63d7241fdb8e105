/** What `kernels bench` measures: routing functions of published models, by the name of a shape. */

import type { RoutingFunction } from '../../contract/config.ts';
import { routingFunction } from '../../kernels/router/routing-function.ts';

export type BenchShape = Readonly<{ name: string; router: RoutingFunction }>;

const softmax = (numExperts: number, topK: number): BenchShape => ({
  name: `${numExperts}/${topK}`,
  router: routingFunction({ numExperts, topK, scoring: 'softmax', renormalize: true }),
});

const biased = { scoring: 'sigmoid', hasSelectionBias: true, renormalize: true, epsilon: 1e-20 } as const;

/** Softmax and renormalisation by `experts/topK`, and models whose function is another one. */
export const BENCH_SHAPES: readonly BenchShape[] = [
  softmax(32, 4),
  softmax(128, 4),
  softmax(128, 8),
  softmax(256, 8),
  softmax(384, 8),
  softmax(512, 10),
  {
    name: 'deepseek-v3',
    router: routingFunction({
      ...biased,
      numExperts: 256,
      topK: 8,
      groups: { count: 8, keep: 4, score: 'top2-sum' },
      scale: 2.5,
    }),
  },
  { name: 'deepseek-v3 ungrouped', router: routingFunction({ ...biased, numExperts: 256, topK: 8, scale: 2.5 }) },
  { name: 'kimi-k3', router: routingFunction({ ...biased, numExperts: 896, topK: 16 }) },
  { name: 'nemotron-3-super', router: routingFunction({ ...biased, numExperts: 512, topK: 22, scale: 5 }) },
];

export const BENCH_TOKENS: readonly number[] = [16, 256, 2048, 8192, 65_536, 524_288];
