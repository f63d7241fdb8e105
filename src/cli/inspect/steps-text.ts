/** What `inspect` prints of ranks and placements. */

import type { InspectionReport, LayerReport } from '../../analysis/inspection.ts';
import { METRIC_DEFINITIONS } from '../../analysis/load/metric-definitions.ts';
import { VERDICT_WORDS } from '../../analysis/placement/screening.ts';
import { greatest, mean, sum } from '../../analysis/statistics.ts';
import { columns, number, percent } from './text-table.ts';

type Steps = NonNullable<InspectionReport['steps']>;
type Placement = NonNullable<InspectionReport['placement']>;

const FEW_LAYERS = 8;

export function stepsText(
  { numRanks, rowsPerStep, work, ...steps }: Steps,
  perLayer: readonly LayerReport[],
): string[] {
  const worst = perLayer
    .map(({ layer }, l) => ({
      layer,
      byStep: work.stepMaxOverMean[l] ?? null,
      total: work.totalMaxOverMean[l] ?? null,
    }))
    .toSorted((a, b) => (b.byStep ?? 0) - (a.byStep ?? 0))
    .slice(0, FEW_LAYERS);
  const allMean = sum(work.meanSum);
  return [
    `${numRanks} ranks, expert e on rank ⌊e·G/E⌋, ${rowsPerStep.length} passes of ${number(mean(rowsPerStep))} rows:`,
    `  per pass ${number(sum(work.stepMaxSum) / allMean)}: ${METRIC_DEFINITIONS.stepMaxOverMean}`,
    `  in total ${number(sum(work.maxOfTotals) / allMean)}: ${METRIC_DEFINITIONS.totalMaxOverMean}`,
    `  SGLang ${number(mean(steps.sglang.balancedness))}: ${METRIC_DEFINITIONS.sglang}`,
    `  vLLM ${number(mean(steps.vllm.balancedness))}: ${METRIC_DEFINITIONS.vllm}`,
    `  TensorRT-LLM ${number(steps.trtllm.average)}: ${METRIC_DEFINITIONS.trtllm}`,
    ...columns(
      ['  worst layers', 'per pass', 'in total'],
      worst.map(({ layer, byStep, total }) => [`  ${layer}`, number(byStep), number(total)]),
    ),
  ];
}

export function placementText({ screening, plan }: Placement): string[] {
  const numSlots = plan.maps.physicalToLogical.reduce((all, slots) => all + slots.length, 0);
  const lines = [
    `EPLB fitted to all of it: busiest rank over mean ${number(worstOf(plan.maxOverMean))} in the worst layer, ` +
      `as it is ${number(worstOf(plan.linearMaxOverMean))} (on its own loads: no forecast)`,
    `  moving there from slot i = expert i mod E: ${plan.slotsChanged} of ${numSlots} slots change; ` +
      `${plan.gpusWithDuplicates} ranks hold an expert twice`,
  ];
  if (screening === null) {
    return [...lines, '  what it would have gained is unknown: the form carries no passes (--passes says them)'];
  }
  const { pairs, windows, windowSteps, aggregateReduction, interval, improvedShare, selectionsPerExpert } = screening;
  lines.push(
    `would it have helped? ${VERDICT_WORDS[screening.verdict]} (${screening.verdict})`,
    `  ${windows} windows of ${windowSteps} passes; placed for one, judged on the next: ${pairs.length} pairs, ` +
      `${number(selectionsPerExpert)} selections per expert in the smallest`,
  );
  if (aggregateReduction !== null) {
    const range = interval === null ? '' : `, 95 % interval ${percent(interval[0])} to ${percent(interval[1])}`;
    lines.push(
      `  work of the busiest rank, summed over passes and layers: ${percent(aggregateReduction)} less${range}`,
      `  better in ${percent(improvedShare)} of pairs`,
    );
  }
  const { minPairs, minSelectionsPerExpert: least, ...wanted } = screening.thresholds;
  lines.push(
    `  "try it" wants ${minPairs} pairs, ${least} selections per expert, ${percent(wanted.minImprovedShare)} of ` +
      `pairs better and ${percent(wanted.minAggregateReduction)} less work`,
  );
  return lines;
}

function worstOf(values: readonly (number | null)[]): number {
  return greatest(values.filter((value) => value !== null));
}
