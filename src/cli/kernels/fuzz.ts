/**
 * Random routing functions on hostile logits: every variant of a device against the reference in f64. A case is a
 * function of its seed.
 */

import type { Device } from '../../contract/device.ts';
import type { RoutedRow } from '../../kernels/router/reference/router-reference.ts';
import { routeRows } from '../../kernels/router/reference/router-reference.ts';
import { countWrongIds, isGroupTie, marginsOf } from '../../kernels/router/router-check.ts';
import type { ExpertGroups, RoutingFunction } from '../../contract/config.ts';
import { SCORINGS, routingFunction, routingFunctionName, scoresAll } from '../../kernels/router/routing-function.ts';
import { runRouter } from '../../kernels/router/router-run.ts';
import type { RouterHost } from '../../kernels/router/router-variant.ts';
import { routerVariantName, routerVariants } from '../../kernels/router/router-variant.ts';
import type { Random } from '../../workload/random.ts';
import { random as randomStream } from '../../workload/random.ts';

export type FuzzCase = Readonly<{
  router: RoutingFunction;
  numTokens: number;
  logits: Float32Array;
  bias: Float32Array | null;
}>;

export type FuzzFailure = Readonly<{ seed: number; kernel: string; problem: string }>;

/** The routing function and the logits of a seed. */
export function fuzzCase(seed: number): FuzzCase {
  const random = randomStream(seed, 'kernels/fuzz');
  const below = (bound: number): number => random.below(bound);
  const oneOf = <T>(values: readonly T[]): T => values[below(values.length)]!;
  const scoring = oneOf(SCORINGS);
  const isWhole = scoresAll(scoring);
  const numExperts =
    below(2) === 0 ? 2 + below(1023) : oneOf([8, 16, 32, 60, 64, 128, 160, 256, 384, 512, 768, 896, 1024]);
  const groups = isWhole && below(3) === 0 ? randomGroups(numExperts, below, oneOf) : null;
  const eligible = groups === null ? numExperts : (numExperts / groups.count) * groups.keep;
  const renormalize = below(2) === 0 && scoring !== 'identity';
  const router = routingFunction({
    numExperts,
    topK: 1 + below(Math.min(32, eligible)),
    scoring,
    softCap: below(6) === 0 ? 30 : 0,
    hasSelectionBias: isWhole && below(2) === 0,
    groups,
    renormalize,
    epsilon: renormalize && isWhole ? oneOf([0, 1e-20]) : 0,
    minDenominator: renormalize && isWhole ? oneOf([0, 1e-12]) : 0,
    // A score that is a logit may be as large as there are.
    scale: oneOf(scoring === 'identity' ? [1] : [1, 2.5, 16]),
    jitter: scoring === 'sparsemixer' ? 0.01 : 0,
  });
  const numTokens = 1 + below(40);
  const logits = new Float32Array(numTokens * numExperts);
  for (let row = 0; row < numTokens; row++) {
    const draw = oneOf(VALUES);
    for (let id = 0; id < numExperts; id++) logits[row * numExperts + id] = draw(random);
  }
  const biasDraw = oneOf([normal, (r: Random) => normal(r) * 0.1, () => 0, (r: Random) => -r.below(3)]);
  const bias = router.hasSelectionBias ? Float32Array.from({ length: numExperts }, () => biasDraw(random)) : null;
  return { router, numTokens, logits, bias };
}

function randomGroups(
  numExperts: number,
  below: (bound: number) => number,
  oneOf: <T>(values: readonly T[]) => T,
): ExpertGroups | null {
  const counts = [2, 3, 4, 5, 8, 16, 32].filter((count) => numExperts % count === 0 && numExperts / count >= 2);
  if (counts.length === 0) return null;
  const count = oneOf(counts);
  return { count, keep: 1 + below(count), score: oneOf(['max', 'top2-sum'] as const) };
}

function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.nextFloat())) * Math.cos(2 * Math.PI * random.nextFloat());
}

const SPECIAL = [Number.NaN, Infinity, -Infinity, 0, -0, 1e-45, -1e-45, 1e-39, 3.4e38, -3.4e38, 1e38, 1, -1];
const words = new Uint32Array(1);
const floats = new Float32Array(words.buffer);

/** How the logits of a row are drawn. */
const VALUES: readonly ((random: Random) => number)[] = [
  normal,
  (random) => normal(random) * 4,
  // bf16, full of ties.
  (random) => {
    floats[0] = normal(random);
    words[0] = words[0]! & 0xffff_0000;
    return floats[0];
  },
  // Neighbours in f32, which a key cannot tell apart.
  (random) => {
    floats[0] = 1.5;
    words[0] = words[0]! + random.below(64);
    return floats[0];
  },
  () => 0.75,
  () => Number.NaN,
  () => -Infinity,
  (random) => (random.nextFloat() < 0.5 ? 0 : -0),
  (random) => SPECIAL[random.below(SPECIAL.length)]!,
  (random) => (random.nextFloat() < 0.1 ? SPECIAL[random.below(SPECIAL.length)]! : normal(random)),
  // Any bits at all: denormals, NaN with any payload.
  (random) => {
    words[0] = random.nextUint32();
    return floats[0]!;
  },
  (random) => normal(random) * 1e-40,
  (random) => -60 - 40 * random.nextFloat(),
];

/** Runs the case of `seed` in every variant of the device. */
export async function fuzzRouter(device: Device, host: RouterHost, seed: number): Promise<readonly FuzzFailure[]> {
  const { router, logits, bias, numTokens } = fuzzCase(seed);
  const rows = routeRows(router, logits, bias);
  const failures: FuzzFailure[] = [];
  for (const variant of routerVariants(router, host, numTokens)) {
    const { ids, weights } = await runRouter(device, router, variant, logits, bias);
    const problem = rows
      .map((expected, row) => problemOf(router, expected, ids, weights, row))
      .find((found) => found !== null);
    const kernel = `${routingFunctionName(router)}-${routerVariantName(variant)}`;
    if (problem !== undefined && problem !== null) failures.push({ seed, kernel, problem });
  }
  return failures;
}

function problemOf(
  router: RoutingFunction,
  expected: RoutedRow,
  allIds: Uint32Array,
  allWeights: Float32Array,
  row: number,
): string | null {
  const { topK, groups } = router;
  const ids = [...allIds.subarray(row * topK, (row + 1) * topK)];
  const weights = allWeights.subarray(row * topK, (row + 1) * topK);
  if (new Set(ids).size < topK || ids.some((id) => id >= router.numExperts)) return `row ${row}: ids ${ids.join(' ')}`;
  const { ofChoices, ofGroups } = marginsOf(router);
  if (groups !== null && isGroupTie(expected.groupScores, groups.keep, ofGroups)) return null;
  const wrong = countWrongIds(ids, expected, ofChoices);
  if (wrong > 0) return `row ${row}: ${wrong} wrong ids: ${ids.join(' ')} ✗ ${expected.ids.join(' ')}`;
  const wild = weights.findIndex((weight) => !Number.isFinite(weight));
  if (wild >= 0) return `row ${row}: weight ${wild} is ${weights[wild]}`;
  // The mixer's weights jump where a rival is just within reach, which rounding decides.
  if (router.scoring === 'sparsemixer' || ids.some((id, k) => id !== expected.ids[k])) return null;
  const tolerance = router.softCap > 0 ? 1e-4 : 3e-5;
  const largest = Math.max(...expected.weights.map(Math.abs));
  const off = expected.weights.findIndex(
    (weight, k) => Math.abs(weight - weights[k]!) > tolerance * Math.abs(weight) + 1e-6 * largest + 1e-36,
  );
  return off < 0 ? null : `row ${row}: weight ${off} is ${weights[off]} ✗ ${expected.weights[off]}`;
}
