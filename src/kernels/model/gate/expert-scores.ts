/**
 * Scores and selection biases in fixed point, for routing functions whose choice is not the order of the logits. The
 * engine's logits are integers, so a table made once on the host holds every score there is; everything behind it is
 * integer arithmetic, and equal on every device.
 *
 *     logit ─table─▶ score ∈ [0, 2^20] ─ + bias ∈ (−2^20, 2^20) ─▶ choice ─ · 1024 + 1023 − id ─▶ key, an i32
 *
 * A choice lies in (−2^20, 2^21), so a key in (−2^30, 2^31): nothing overflows, keys of different experts differ, and
 * order is choice descending, id ascending. The sum of two choices, a group's score, stays under 2^22.
 *
 * softmax divides by a sum S, which depends on all logits. With m the largest of them, the table holds e(m − logit) ∈
 * [0, 2^17]:
 *
 *     S = Σ e      2^17 ≤ S ≤ 1024 · 2^17 = 2^27, since the largest logit gives 2^17
 *     R = ⌊2^31 / S⌋                          at least 16: a factor that the experts of a row share
 *     score = ⌊e · R / 2^11⌋                  e · R ≤ S · R ≤ 2^31 fits a u32, hence the score is at most 2^20
 */

import type { ModelConfig } from '../../../contract/config.ts';
import { scramble } from '../mix/mix.ts';
import { routingFunctionOf, selectsByLogit } from '../../router/routing-function.ts';

/** A score of 1; of sqrt-softplus, which reaches 4, a quarter is meant. */
export const SCORE_ONE: number = 2 ** 20;
const SQRT_SOFTPLUS_ONE = SCORE_ONE / 4;

/** A softmax's exponential of 0. */
export const EXP_ONE: number = 2 ** 17;
/** `R = ⌊RECIPROCAL_ONE / S⌋`, `score = ⌊e · R / 2^SCORE_SHIFT⌋`. */
export const RECIPROCAL_ONE: number = 2 ** 31;
export const SCORE_SHIFT = 11;

/** What a logit of the integer gate stands for is bounded to ±16: beyond it every score is flat. */
const LOGIT_BOUND = 16;

/**
 * How a choice is made: from the logit itself, from a table at the logit, or from a softmax's table at the distance to
 * the largest logit.
 */
export const ChoiceKind = { logit: 0, table: 1, softmax: 2 } as const;
export type ChoiceKind = (typeof ChoiceKind)[keyof typeof ChoiceKind];

type ScoredModel = Pick<
  ModelConfig,
  'numLayers' | 'firstLayer' | 'numExperts' | 'topK' | 'gateWidth' | 'routingFunction'
>;

export function choiceKind(model: Pick<ModelConfig, 'numExperts' | 'topK' | 'routingFunction'>): ChoiceKind {
  const router = routingFunctionOf(model);
  if (selectsByLogit(router)) return ChoiceKind.logit;
  return router.scoring === 'softmax' ? ChoiceKind.softmax : ChoiceKind.table;
}

/** What is added to a logit to find its place in the table: no logit is less than −56 G. */
export function lowestLogit(gateWidth: number): number {
  return 56 * gateWidth;
}

/**
 * The real logit that an integer one stands for. A sum of G products of nibbles has a standard deviation of 21.5 √G,
 * which becomes 1.9: most logits of published routers lie within ±8.
 */
export function realLogit(logit: number, gateWidth: number): number {
  const real = logit / (32 * Math.sqrt(gateWidth / 8));
  return Math.max(-LOGIT_BOUND, Math.min(LOGIT_BOUND, real));
}

/**
 * The table, `[120 G + 1]`, by `logit + lowestLogit(G)`, or for softmax by `m − logit`; empty where choices are logits.
 */
export function scoreTable(model: ScoredModel): Int32Array {
  const kind = choiceKind(model);
  const { gateWidth } = model;
  if (kind === ChoiceKind.logit) return new Int32Array(0);
  const table = new Int32Array(120 * gateWidth + 1);
  const isSigmoid = model.routingFunction!.scoring === 'sigmoid';
  for (let i = 0; i < table.length; i++) {
    if (kind === ChoiceKind.softmax) {
      table[i] = Math.round(EXP_ONE * Math.exp(-i / (32 * Math.sqrt(gateWidth / 8))));
      continue;
    }
    const x = realLogit(i - lowestLogit(gateWidth), gateWidth);
    table[i] = isSigmoid
      ? Math.round(SCORE_ONE / (1 + Math.exp(-x)))
      : Math.round(SQRT_SOFTPLUS_ONE * Math.sqrt(Math.log1p(Math.exp(-Math.abs(x))) + Math.max(x, 0)));
  }
  return table;
}

/**
 * Selection biases, `[L, E]`, in the scores' unit; empty without. Seeded by their place, spread evenly over ± what
 * decides between neighbours at the K-th place now and then: 1/64 of sigmoid's 1, 1/8 of sqrt-softplus' 4, the even
 * share 1/E of a softmax.
 */
export function selectionBias(model: ScoredModel): Int32Array {
  const { numLayers, numExperts, firstLayer = 0 } = model;
  const { scoring, hasSelectionBias } = routingFunctionOf(model);
  if (!hasSelectionBias) return new Int32Array(0);
  const shares = { softmax: 1 / numExperts, sigmoid: 1 / 64, 'sqrt-softplus': 1 / 32 } as const;
  const spread = Math.floor((SCORE_ONE - 1) * (shares[scoring as keyof typeof shares] ?? 0));
  const firstPlace = firstLayer * numExperts;
  return Int32Array.from({ length: numLayers * numExperts }, (_, place) => {
    const hash = scramble(Math.imul(firstPlace + place + 1, 0xc2b2ae35) ^ 0x452821e6) >>> 0;
    return (hash % (2 * spread + 1)) - spread;
  });
}
