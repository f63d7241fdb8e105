/** Questions about a model's routing function, its name, and what of it the kernels can hold. */

import type { ModelConfig, RouterScoring, RoutingFunction } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';

export const PLAIN: RoutingFunction = { scoring: 'softmax', hasSelectionBias: false, groups: null };

/** Groups that are kept are the bits of one word. */
export const MAX_GROUPS = 32;

const SCORINGS: readonly RouterScoring[] = [
  'softmax',
  'sigmoid',
  'sqrt-softplus',
  'topk-softmax',
  'topk-sigmoid',
  'sparsemixer',
];

/**
 * Whether selection reads the logits themselves. Every score grows with its logit; so without a bias, and without a sum over scores, the order of
 * the choices is that of the logits.
 */
export function selectsByLogit({ hasSelectionBias, groups }: RoutingFunction): boolean {
  return !hasSelectionBias && groups?.score !== 'top2-sum';
}

/** Whether selection is the K largest logits, and nothing else. */
export function isPlainTopK(routing: RoutingFunction): boolean {
  return selectsByLogit(routing) && routing.groups === null;
}

/** Name of what is selected, equal for functions that select the same: `topk`, `sigmoid-bias-g8x4-top2-sum`. */
export function routingFunctionName(routing: RoutingFunction = PLAIN): string {
  const { scoring, hasSelectionBias, groups } = routing;
  const parts: string[] = [selectsByLogit(routing) ? 'topk' : scoring];
  if (hasSelectionBias) parts.push('bias');
  if (groups !== null) parts.push(`g${groups.count}x${groups.keep}`, groups.score);
  return parts.join('-');
}

/** Throws `BAD_VALUE` or `UNKNOWN_NAME` for a function that no E and K of the model allow. */
export function checkRoutingFunction({
  numExperts,
  topK,
  routingFunction,
}: Pick<ModelConfig, 'numExperts' | 'topK' | 'routingFunction'>): void {
  if (routingFunction === undefined) return;
  const { scoring, hasSelectionBias, groups } = routingFunction;
  if (!SCORINGS.includes(scoring)) throw RoutedExpertsError.of('UNKNOWN_NAME', 'scoring', scoring, SCORINGS);
  const scoresAll = scoring === 'softmax' || scoring === 'sigmoid' || scoring === 'sqrt-softplus';
  if (!scoresAll && (hasSelectionBias || groups !== null)) {
    throw bad('scoring', scoring, 'softmax, sigmoid or sqrt-softplus: a bias and groups need scores of all experts');
  }
  if (groups === null) return;
  const { count, keep, score } = groups;
  requireWhole('groups', count, Math.min(MAX_GROUPS, numExperts));
  requireWhole('groups kept', keep, count);
  if (score !== 'max' && score !== 'top2-sum') {
    throw RoutedExpertsError.of('UNKNOWN_NAME', 'group score', String(score), ['max', 'top2-sum']);
  }
  if (numExperts % count !== 0) throw bad('groups', count, `a divisor of the ${numExperts} experts`);
  const groupSize = numExperts / count;
  if (score === 'top2-sum' && groupSize < 2) {
    throw bad('groups', count, 'groups of two experts or more: their score sums two');
  }
  if (topK > keep * groupSize) throw bad('topK', topK, `at most the ${keep * groupSize} experts of the kept groups`);
}

function requireWhole(name: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 1 || value > max) throw bad(name, value, `a whole number in [1, ${max}]`);
}

function bad(name: string, value: unknown, wanted: string): RoutedExpertsError {
  return RoutedExpertsError.of('BAD_VALUE', name, value, wanted);
}
