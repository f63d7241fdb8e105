/** NeMo Automodel's detailed metrics (`components/moe/load_balance_metrics.py`). */

import { balanceOf } from '../load/balance.ts';
import { median, sum } from '../statistics.ts';

/**
 * By NeMo's names. Its layer i is the i-th in the order that `counts` has them in.
 *
 * @param topExperts how many of the least and of the most used experts are listed
 */
export function nemoMetrics(counts: readonly ArrayLike<number>[], topExperts: number): Record<string, number> {
  const metrics: Record<string, number> = {};
  const cvs: number[] = [];
  const deadFractions: number[] = [];
  const diversities: number[] = [];
  const utilizations: { name: string; value: number }[] = [];
  for (const [i, layer] of counts.entries()) {
    const { total, cvSample, deadFraction, diversity } = balanceOf(layer, { numRows: 0, topK: 1 });
    const mu = total / layer.length;
    const own = Array.from(layer, (count) => (total === 0 ? 0 : count / mu));
    own.forEach((value, e) => utilizations.push({ name: `layer_${i}_expert_${e}`, value }));
    cvs.push((metrics[`moe/layer_${i}/cv`] = cvSample ?? 0));
    metrics[`moe/layer_${i}/utilization_mean`] = sum(own) / own.length;
    deadFractions.push((metrics[`moe/layer_${i}/dead_expert_frac`] = deadFraction ?? 0));
    diversities.push((metrics[`moe/layer_${i}/expert_diversity`] = diversity ?? 0));
  }
  const ascending = utilizations.toSorted((a, b) => a.value - b.value);
  for (const { name, value } of [...ascending.slice(0, topExperts), ...ascending.slice(-topExperts)]) {
    metrics[`moe_expert_utilization/${name}`] = value;
  }
  const at = (quarter: number): number => ascending[Math.floor((quarter * ascending.length) / 4)]!.value;
  const middle = median(ascending.map(({ value }) => value))!;
  return Object.assign(metrics, {
    'moe/cv_mean': sum(cvs) / cvs.length,
    'moe/cv_median': median(cvs)!,
    'moe/cv_min': Math.min(...cvs),
    'moe/cv_max': Math.max(...cvs),
    'moe/expert_utilization_p25': at(1),
    'moe/expert_utilization_median': middle,
    'moe/expert_utilization_p75': at(3),
    'moe/expert_utilization_min': ascending[0]!.value,
    'moe/expert_utilization_max': ascending.at(-1)!.value,
    'moe/dead_expert_frac_mean': sum(deadFractions) / deadFractions.length,
    'moe/expert_diversity_mean': sum(diversities) / diversities.length,
    'moe/expert_diversity_min': Math.min(...diversities),
  });
}
