/**
 * Every routing function in f64, brute force: what the WGSL router kernels are held against. One row at a time, in the
 * order in which docs/router-kernels.md defines it. Nothing here is clever, and nothing is shared with the kernels but
 * the definition.
 */

import type { ExpertGroups, RoutingFunction } from '../../../contract/config.ts';
import { selectsByLogit } from '../routing-function.ts';

/** The choices of one row, and what they were made by. */
export type RoutedRow = Readonly<{
  /** K ids, best choice first, of equals the smaller id first. */
  ids: readonly number[];
  /** K weights, in the order of `ids`. */
  weights: readonly number[];
  /** E choices: what was ranked; −∞ in groups that were not kept. */
  choices: readonly number[];
  /** Scores of the groups, empty without groups. */
  groupScores: readonly number[];
}>;

/** Bound of a logit where arithmetic is done on it: the difference of two stays in f32. */
export const LOGIT_BOUND: number = Math.fround(1e38);
/** Below it sigmoid and softplus are constant, and normal in f32. */
const FLAT_BELOW = -87;
/** Smallest normal f32; less is 0, as it may be on a device. */
const SMALLEST = 2 ** -126;

const flush = (value: number): number => (Math.abs(value) < SMALLEST ? 0 : value);
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Routes one row: E logits, and E biases if the function has them. */
export function routeRow(
  router: RoutingFunction,
  logits: ArrayLike<number>,
  bias: ArrayLike<number> | null = null,
): RoutedRow {
  const ordered = Array.from(logits, (logit) => (Number.isNaN(logit) ? -Infinity : logit));
  const capped = ordered.map((logit) => {
    const bounded = Math.min(LOGIT_BOUND, Math.max(-LOGIT_BOUND, logit));
    return router.softCap > 0 ? router.softCap * Math.tanh(bounded / router.softCap) : bounded;
  });
  const scores = scoresOf(router, capped);
  let choices = selectsByLogit(router) ? ordered : scores.map((score, id) => score + (bias?.[id] ?? 0));
  const groupScores = router.groups === null ? [] : scoreGroups(router.groups, choices);
  if (router.groups !== null) choices = keepGroups(router.groups, groupScores, choices);
  const ids = best(choices, router.topK, isKept(router, groupScores));
  const weights = weightsOf(router, capped, scores, ids);
  return { ids, weights, choices, groupScores };
}

/** Routes every row of `logits` `[T, E]`. */
export function routeRows(router: RoutingFunction, logits: Float32Array, bias: Float32Array | null): RoutedRow[] {
  const { numExperts } = router;
  return Array.from({ length: logits.length / numExperts }, (_, row) =>
    routeRow(router, logits.subarray(row * numExperts, (row + 1) * numExperts), bias),
  );
}

/** Writes rows as kernels do: ids and weights `[T, K]`. */
export function putRows(rows: readonly RoutedRow[], ids: Uint32Array, weights: Float32Array): void {
  for (const [row, routed] of rows.entries()) {
    ids.set(routed.ids, row * routed.ids.length);
    weights.set(routed.weights, row * routed.ids.length);
  }
}

/** Scores of all experts; those of the `topk-` functions and of the sparse mixer are made of the chosen ones later. */
function scoresOf({ scoring }: RoutingFunction, logits: readonly number[]): number[] {
  switch (scoring) {
    case 'softmax':
      return softmax(logits);
    case 'sigmoid':
    case 'topk-sigmoid':
      return logits.map((logit) => 1 / (1 + Math.exp(-Math.max(logit, FLAT_BELOW))));
    case 'sqrt-softplus':
      return logits.map((logit) =>
        Math.sqrt(Math.log1p(Math.exp(-Math.abs(Math.max(logit, FLAT_BELOW)))) + Math.max(logit, 0)),
      );
    case 'identity':
    case 'topk-softmax':
    case 'sparsemixer':
      return [...logits];
    default:
      return scoring satisfies never;
  }
}

function softmax(logits: readonly number[]): number[] {
  const max = Math.max(...logits);
  const exponentials = logits.map((logit) => Math.exp(logit - max));
  const total = sum(exponentials);
  return exponentials.map((value) => flush(value / total));
}

function scoreGroups({ count, score }: ExpertGroups, choices: readonly number[]): number[] {
  const size = choices.length / count;
  return Array.from({ length: count }, (_, group) => {
    const [first, second] = choices.slice(group * size, (group + 1) * size).sort((a, b) => (a === b ? 0 : b - a));
    return score === 'max' ? first! : first! + second!;
  });
}

function keepGroups(groups: ExpertGroups, scores: readonly number[], choices: readonly number[]): number[] {
  const kept = new Set(best(scores, groups.keep));
  return choices.map((choice, id) => (kept.has(Math.floor((id * groups.count) / choices.length)) ? choice : -Infinity));
}

/** Whether an expert can be chosen: −∞ alone does not say so, a logit may be −∞. */
function isKept({ groups, numExperts }: RoutingFunction, scores: readonly number[]): (id: number) => boolean {
  if (groups === null) return () => true;
  const kept = new Set(best(scores, groups.keep));
  return (id) => kept.has(Math.floor((id * groups.count) / numExperts));
}

/** Indices of the largest values among those eligible: value descending, index ascending. */
function best(values: readonly number[], count: number, isEligible: (id: number) => boolean = () => true): number[] {
  const eligible = values.map((_, id) => id).filter(isEligible);
  return eligible.sort((a, b) => (values[a] === values[b] ? a - b : values[b]! > values[a]! ? 1 : -1)).slice(0, count);
}

function weightsOf(
  router: RoutingFunction,
  logits: readonly number[],
  scores: readonly number[],
  ids: readonly number[],
): number[] {
  let weights = ids.map((id) => scores[id]!);
  if (router.scoring === 'topk-softmax') weights = softmax(weights);
  if (router.scoring === 'sparsemixer') weights = ids.map((_, k) => sparseMixerWeight(router.jitter, logits, ids, k));
  if (router.renormalize) {
    const denominator = Math.max(sum(weights) + router.epsilon, router.minDenominator);
    weights = weights.map((weight) => (denominator < SMALLEST ? 0 : weight / denominator));
  }
  return weights.map((weight) => weight * router.scale);
}

/** Share of the k-th chosen expert among those not chosen before it and within 2ε of it (Phi-3.5-MoE). */
function sparseMixerWeight(jitter: number, logits: readonly number[], ids: readonly number[], k: number): number {
  const threshold = logits[ids[k]!]!;
  const rivals = logits.filter((logit, id) => {
    const isClose = threshold - logit <= 2 * jitter * Math.max(Math.abs(logit), threshold);
    return isClose && !ids.slice(0, k).includes(id);
  });
  return 1 / sum(rivals.map((logit) => Math.exp(logit - threshold)));
}
