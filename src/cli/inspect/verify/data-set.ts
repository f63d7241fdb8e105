/** What there is to say about a data set, under the keys of the recorded answers. */

import type { Balance } from '../../../analysis/load/balance.ts';
import { balanceOf, summaryOf } from '../../../analysis/load/balance.ts';
import { addCounts, countsOf, layersOf } from '../../../analysis/counts.ts';
import { coverageOf } from '../../../analysis/load/coverage.ts';
import { repeatsOf } from '../../../analysis/load/repeats.ts';
import { sharedPrefix } from '../../../analysis/load/shared-prefix.ts';
import { StepLoads } from '../../../analysis/load/step-loads.ts';
import { affinities } from '../../../analysis/locality/affinity.ts';
import { coactivations } from '../../../analysis/locality/coactivation.ts';
import { cacheReport } from '../../../analysis/locality/expert-cache.ts';
import {
  chanceByPopularity,
  sequenceOverlap,
  slotOverlap,
  withinStepOverlap,
} from '../../../analysis/locality/overlap.ts';
import type { EplbShape } from '../../../analysis/placement/eplb.ts';
import { eplb } from '../../../analysis/placement/eplb.ts';
import {
  gpuLoadsOf,
  gpusWithDuplicates,
  linearPlacement,
  maxOverMean,
  placementOf,
} from '../../../analysis/placement/placement.ts';
import { rocmGuard } from '../../../analysis/placement/rocm-guard.ts';
import type { ScreeningThresholds } from '../../../analysis/placement/screening.ts';
import { Screener } from '../../../analysis/placement/screening.ts';
import { vllmPolicy } from '../../../analysis/placement/vllm-policy.ts';
import { nemoMetrics } from '../../../analysis/trainers/nemo.ts';
import { verlMetrics } from '../../../analysis/trainers/verl.ts';
import type { Capture } from '../../../rows/captures/capture.ts';

export type DataSetOptions = Readonly<{
  gpus: number;
  eplb: EplbShape;
  windowSteps: number;
  cacheSizes: readonly number[];
  lags: readonly number[];
  thresholds?: ScreeningThresholds;
}>;

/** Experts that NeMo's metrics list at each end. */
const NEMO_TOP = 5;

/** The answers by the key of a section; `capture` must know its passes. */
export function dataSetAnswers(capture: Capture, options: DataSetOptions): Readonly<Record<string, unknown>> {
  const { layers, numRows, topK, numExperts, requests, name } = capture;
  const counts = layersOf(countsOf(capture), layers.length);
  const balances = counts.map((layer): Balance => balanceOf(layer, { numRows, topK }));
  return {
    name,
    numExperts,
    topK,
    layers,
    options,
    rows: numRows,
    requests: requests.length,
    counts,
    perLayer: balances.map((balance, l) => ({
      layer: layers[l],
      ...balance,
    })),
    summary: summaryOf(balances),
    coverage: coverageOf(capture),
    ...stepAnswers(capture, options),
    ...placementAnswers(capture, counts, options),
    locality: {
      chanceUniform: topK / numExperts,
      chancePopularity: counts.map((layer) => chanceByPopularity(layer, numRows, topK)),
      sequence: Object.fromEntries(options.lags.map((lag) => [lag, sequenceOverlap(capture, lag)])),
      slot: slotOverlap(capture),
      withinStep: withinStepOverlap(capture),
    },
    cache: cacheReport(capture, options.cacheSizes),
    affinity: affinities(capture),
    coactivation: coactivations(capture),
    repeats: repeatsOf(capture),
    verl: verlMetrics(capture),
    nemo: nemoMetrics(counts, NEMO_TOP),
    prefix: sharedPrefix(capture),
  };
}

function stepAnswers(capture: Capture, options: DataSetOptions): Readonly<Record<string, unknown>> {
  const { layers, numExperts, topK } = capture;
  const { gpus } = options;
  const loads = new StepLoads(linearPlacement(layers.length, numExperts, gpus), { numExperts, topK });
  const screener = new Screener({ ...options, numLayers: layers.length, numExperts, topK });
  for (const step of capture.steps ?? []) {
    const counts = new Uint32Array(layers.length * numExperts);
    let numRows = 0;
    for (const [first, count] of step) {
      addCounts(capture, counts, first, first + count);
      numRows += count;
    }
    loads.add(counts, numRows);
    screener.add(counts, numRows);
  }
  return { steps: { ...loads.report(), gpus, placement: 'linear' }, screening: screener.report() };
}

function placementAnswers(
  { numExperts }: Capture,
  counts: readonly Uint32Array[],
  { eplb: shape }: DataSetOptions,
): Readonly<Record<string, unknown>> {
  const { physicalToLogical, logicalCount } = eplb(counts, shape);
  const placement = placementOf(physicalToLogical, numExperts, shape.numGpus);
  const loads = gpuLoadsOf(placement, counts);
  const vllm = vllmPolicy(counts, shape);
  return {
    eplb: {
      ...shape,
      physicalToLogical,
      logicalCount,
      gpuLoads: loads,
      maxOverMean: loads.map(maxOverMean),
      gpusWithDuplicates: gpusWithDuplicates(placement),
      vllmPolicyAgrees: vllm.every((slots, l) => slots.every((expert, slot) => expert === physicalToLogical[l]![slot])),
    },
    rocmGuard: rocmGuard(counts, placement),
  };
}
