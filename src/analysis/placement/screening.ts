/**
 * Whether a placement would have helped: fitted on one window of passes, judged on the next by the maximum of each
 * pass. A placement that is judged on its own window gains on noise alone.
 */

import { layersOf } from '../counts.ts';
import { greatest, quotient, sum, topIndices } from '../statistics.ts';
import type { EplbShape } from './eplb.ts';
import { eplb } from './eplb.ts';
import type { Placement } from './placement.ts';
import { addGpuLoads, linearPlacement, placementOf } from './placement.ts';
import type { RatioInterval } from './ratio-interval.ts';
import { reductionInterval } from './ratio-interval.ts';

export type ScreeningThresholds = Readonly<{
  minPairs: number;
  minSelectionsPerExpert: number;
  minImprovedShare: number;
  minAggregateReduction: number;
}>;

/** Those of vllm-ascend's prototype, and the least evidence: without it uniform noise "gains" 9 %. */
export const SCREENING_THRESHOLDS: ScreeningThresholds = {
  minPairs: 2,
  minSelectionsPerExpert: 8,
  minImprovedShare: 0.8,
  minAggregateReduction: 0.05,
};

export type ScreeningVerdict = 'recommend_trial' | 'not_recommended_now' | 'insufficient_evidence';

/** The verdicts in words. */
export const VERDICT_WORDS: Readonly<Record<ScreeningVerdict, string>> = {
  recommend_trial: 'try it',
  not_recommended_now: 'not worth it',
  insufficient_evidence: 'too little data',
};

/** Work is the sum over passes and layers of the busiest GPU's load. */
export type WindowPair = Readonly<{
  a: number;
  b: number;
  /** Work of window b as it is: linear, without replicas. */
  current: number;
  /** Under the placement for window a. */
  candidate: number;
  reduction: number | null;
  /** Under the placement for window b itself. No bound: the balancer is greedy, and can lose. */
  hindsight: number;
  /** Per layer: the share of a's busiest experts that are among b's. */
  hotOverlap: readonly number[];
}>;

export type Screening = Readonly<{
  windowSteps: number;
  windows: number;
  /** The least of all windows; `null` without a window. */
  selectionsPerExpert: number | null;
  hotSetSize: number;
  hotOverlapChance: number;
  pairs: readonly WindowPair[];
  thresholds: ScreeningThresholds;
  improvedShare: number | null;
  aggregateReduction: number | null;
  /** Of the aggregate reduction, over the judged passes; `null` with fewer than two. */
  interval: RatioInterval | null;
  verdict: ScreeningVerdict;
}>;

export type ScreeningOptions = Readonly<{
  numLayers: number;
  numExperts: number;
  topK: number;
  eplb: EplbShape;
  windowSteps: number;
  thresholds?: ScreeningThresholds;
}>;

type Window = Readonly<{ candidate: Placement; hot: readonly (readonly number[])[] }>;

/** Is fed with the counts of one pass after another. Holds those of one window. */
export class Screener {
  readonly #options: ScreeningOptions;
  readonly #linear: Placement;
  readonly #hotSetSize: number;
  readonly #pairs: WindowPair[] = [];
  readonly #perStep: (readonly [current: number, candidate: number])[] = [];
  #steps: Uint32Array[] = [];
  #numRows = 0;
  #numWindows = 0;
  #selectionsPerExpert: number | null = null;
  #previous: Window | null = null;

  constructor(options: ScreeningOptions) {
    const { numLayers, numExperts } = options;
    this.#options = options;
    this.#linear = linearPlacement(numLayers, numExperts, options.eplb.numGpus);
    this.#hotSetSize = Math.max(1, Math.floor(numExperts / 8));
  }

  /** `counts`: selections of the pass, `[L, E]`; copied. */
  add(counts: Uint32Array, numRows: number): void {
    this.#steps.push(counts.slice());
    this.#numRows += numRows;
    if (this.#steps.length === this.#options.windowSteps) this.#endWindow();
  }

  report(): Screening {
    const { windowSteps, numExperts, thresholds = SCREENING_THRESHOLDS } = this.#options;
    const pairs = this.#pairs;
    const found = {
      windowSteps,
      windows: this.#numWindows,
      selectionsPerExpert: this.#selectionsPerExpert,
      hotSetSize: this.#hotSetSize,
      hotOverlapChance: this.#hotSetSize / numExperts,
      pairs,
      thresholds,
      improvedShare: quotient(pairs.filter(({ candidate, current }) => candidate < current).length, pairs.length),
      aggregateReduction: reductionOf(
        sum(pairs.map(({ current }) => current)),
        sum(pairs.map(({ candidate }) => candidate)),
      ),
      interval: reductionInterval(this.#perStep),
    };
    return { ...found, verdict: verdictOf(found) };
  }

  #endWindow(): void {
    const { numLayers, numExperts, topK, eplb: shape } = this.#options;
    const counts = new Uint32Array(numLayers * numExperts);
    for (const step of this.#steps) step.forEach((count, i) => (counts[i]! += count));
    const layers = layersOf(counts, numLayers);
    const placed = eplb(layers, shape).physicalToLogical;
    const window: Window = {
      candidate: placementOf(placed, numExperts, shape.numGpus),
      hot: layers.map((layer) => topIndices(layer, this.#hotSetSize)),
    };
    if (this.#previous !== null) this.#judge(this.#previous, window);
    const selections = (this.#numRows * topK) / numExperts;
    this.#selectionsPerExpert = Math.min(selections, this.#selectionsPerExpert ?? Infinity);
    this.#numWindows++;
    this.#previous = window;
    this.#steps = [];
    this.#numRows = 0;
  }

  #judge(fitted: Window, judged: Window): void {
    const work = (placement: Placement): number[] => this.#steps.map((step) => peakWork(placement, step));
    const current = work(this.#linear);
    const candidate = work(fitted.candidate);
    current.forEach((load, i) => this.#perStep.push([load, candidate[i]!]));
    const totals = { current: sum(current), candidate: sum(candidate), hindsight: sum(work(judged.candidate)) };
    this.#pairs.push({
      a: this.#numWindows - 1,
      b: this.#numWindows,
      ...totals,
      reduction: reductionOf(totals.current, totals.candidate),
      hotOverlap: fitted.hot.map((hot, l) => hot.filter((e) => judged.hot[l]!.includes(e)).length / hot.length),
    });
  }
}

/** Load of the busiest GPU of a pass, summed over layers. */
export function peakWork(placement: Placement, counts: Uint32Array): number {
  const loads = new Float64Array(placement.numGpus);
  let work = 0;
  for (const [l, layerCounts] of layersOf(counts, placement.layers.length).entries()) {
    loads.fill(0);
    addGpuLoads(placement.layers[l]!, layerCounts, loads);
    work += greatest(loads);
  }
  return work;
}

function reductionOf(current: number, candidate: number): number | null {
  return current === 0 ? null : 1 - candidate / current;
}

function verdictOf(found: Omit<Screening, 'verdict'>): ScreeningVerdict {
  const { thresholds, pairs, selectionsPerExpert, improvedShare, aggregateReduction } = found;
  if (pairs.length < thresholds.minPairs || (selectionsPerExpert ?? 0) < thresholds.minSelectionsPerExpert) {
    return 'insufficient_evidence';
  }
  const isBetter =
    (improvedShare ?? 0) >= thresholds.minImprovedShare &&
    (aggregateReduction ?? 0) >= thresholds.minAggregateReduction;
  return isBetter ? 'recommend_trial' : 'not_recommended_now';
}
