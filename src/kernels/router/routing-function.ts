/** Routing functions: completed and checked, their names, and what follows from them for selection. */

import type { ExpertGroups, ModelConfig, RouterScoring, RoutingFunction } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';

export const SCORINGS: readonly RouterScoring[] = [
  'identity',
  'softmax',
  'sigmoid',
  'sqrt-softplus',
  'topk-softmax',
  'topk-sigmoid',
  'sparsemixer',
];

/** Most experts: the id takes at most 10 bits of a key. */
const MAX_EXPERTS = 1024;
const MAX_TOP_K = 32;
/** Groups that are kept are the bits of one word. */
const MAX_GROUPS = 32;

const DEFAULTS = {
  scoring: 'softmax',
  softCap: 0,
  hasSelectionBias: false,
  groups: null,
  renormalize: false,
  epsilon: 0,
  minDenominator: 0,
  scale: 1,
  jitter: 0,
} as const;

/** Whether all experts have a score. Otherwise those that their logits chose have one, and bias and groups need it. */
export function scoresAll(scoring: RouterScoring): boolean {
  return scoring !== 'sparsemixer' && !scoring.startsWith('topk-');
}

/** Completes and checks a routing function. Throws `BAD_VALUE`, `UNKNOWN_NAME`. */
export function routingFunction(
  given: Pick<RoutingFunction, 'numExperts' | 'topK'> & Partial<RoutingFunction>,
): RoutingFunction {
  const router: RoutingFunction = { ...DEFAULTS, ...given };
  const { numExperts, topK, scoring, groups, hasSelectionBias } = router;
  whole('numExperts', numExperts, 1, MAX_EXPERTS);
  whole('topK', topK, 1, Math.min(MAX_TOP_K, numExperts));
  if (!SCORINGS.includes(scoring)) throw RoutedExpertsError.of('UNKNOWN_NAME', 'scoring', scoring, SCORINGS);
  for (const name of ['softCap', 'epsilon', 'minDenominator', 'jitter'] as const) finite(name, router[name], 0);
  finite('scale', router.scale, -1e30);
  if (!scoresAll(scoring) && (hasSelectionBias || groups !== null)) {
    throw RoutedExpertsError.of(
      'BAD_VALUE',
      'scoring',
      scoring,
      'one that scores all experts: bias and groups need it',
    );
  }
  if (scoring === 'topk-softmax' && router.epsilon + router.minDenominator > 0) {
    throw RoutedExpertsError.of('BAD_VALUE', 'epsilon', router.epsilon, '0: a softmax over the K chosen sums to 1');
  }
  if (groups !== null) checkGroups(groups, numExperts, topK);
  return router;
}

/** The function of a model, complete. Throws `BAD_VALUE`, `UNKNOWN_NAME`. */
export function routingFunctionOf(
  model: Pick<ModelConfig, 'numExperts' | 'topK' | 'routingFunction'>,
): RoutingFunction {
  return routingFunction({ ...model.routingFunction, numExperts: model.numExperts, topK: model.topK });
}

function checkGroups({ count, keep, score }: ExpertGroups, numExperts: number, topK: number): void {
  whole('groups', count, 1, Math.min(MAX_GROUPS, numExperts));
  whole('topkGroups', keep, 1, count);
  if (score !== 'max' && score !== 'top2-sum') {
    throw RoutedExpertsError.of('UNKNOWN_NAME', 'groupScore', String(score), ['max', 'top2-sum']);
  }
  if (numExperts % count !== 0) {
    throw RoutedExpertsError.of('BAD_VALUE', 'groups', count, `a divisor of the ${numExperts} experts`);
  }
  const groupSize = numExperts / count;
  if (score === 'top2-sum' && groupSize < 2) {
    throw RoutedExpertsError.of('BAD_VALUE', 'groups', count, 'groups of two experts or more: their score sums two');
  }
  if (topK > keep * groupSize) {
    throw RoutedExpertsError.of(
      'BAD_VALUE',
      'topK',
      topK,
      `at most the ${keep * groupSize} experts of the kept groups`,
    );
  }
}

function whole(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw RoutedExpertsError.of('BAD_VALUE', name, value, `a whole number in [${min}, ${max}]`);
  }
}

function finite(name: string, value: number, min: number): void {
  if (!Number.isFinite(value) || value < min || value > 1e30) {
    throw RoutedExpertsError.of('BAD_VALUE', name, value, `a number in [${min}, 1e30]`);
  }
}

/** Throws `BAD_VALUE` unless there is a finite bias per expert. */
export function checkSelectionBias({ numExperts }: RoutingFunction, bias: Float32Array): void {
  if (bias.length !== numExperts) {
    throw RoutedExpertsError.of(
      'BAD_VALUE',
      'length of the selection bias',
      bias.length,
      `${numExperts}, one an expert`,
    );
  }
  const wrong = bias.findIndex((value) => !Number.isFinite(value) || Math.abs(value) > 1e30);
  if (wrong >= 0) throw RoutedExpertsError.of('BAD_VALUE', `selection bias ${wrong}`, bias[wrong], 'a finite number');
}

/**
 * Whether selection reads the logits themselves. Every score grows with its logit; so without a bias, and without a sum
 * over scores, the order of the choices is that of the logits, which no rounding of an exponential can blur.
 */
export function selectsByLogit({ scoring, hasSelectionBias, groups }: RoutingFunction): boolean {
  return !hasSelectionBias && (scoring === 'identity' || groups?.score !== 'top2-sum');
}

/** Whether the keys of a subgroup kernel hold choices in fixed point: sigmoids plus biases that lie near each other. */
export function hasFixedKeys(router: RoutingFunction): boolean {
  return router.scoring === 'sigmoid' && !selectsByLogit(router);
}

/** Name of the function, distinct for distinct functions: `e256-k8-sigmoid-bias-g8x4-top2-norm1e-20-x2.5`. */
export function routingFunctionName(router: RoutingFunction): string {
  const { numExperts, topK, scoring, softCap, hasSelectionBias, groups, renormalize } = router;
  const parts = [`e${numExperts}`, `k${topK}`, scoring];
  if (softCap > 0) parts.push(`cap${softCap}`);
  if (scoring === 'sparsemixer') parts.push(`j${router.jitter}`);
  if (hasSelectionBias) parts.push('bias');
  if (groups !== null) parts.push(`g${groups.count}x${groups.keep}`, groups.score);
  if (renormalize) parts.push('norm');
  if (router.epsilon > 0) parts.push(`eps${router.epsilon}`);
  if (router.minDenominator > 0) parts.push(`min${router.minDenominator}`);
  if (router.scale !== 1) parts.push(`x${router.scale}`);
  return parts.join('-');
}
