/**
 * Load of each GPU in each forward pass, as serving engines print it. A pass waits for its busiest GPU, so what counts
 * is the sum of the maxima over passes, not the maximum of the sums.
 */

import type { Placement } from '../placement/placement.ts';
import { addGpuLoads } from '../placement/placement.ts';
import { greatest, mean, quotient, sum } from '../statistics.ts';

/** SGLang adds it to both sides of the quotient, so that a layer without load is 1. */
const SGLANG_EPSILON = 1e-5;

export type Balancedness = Readonly<{
  avgTokens: readonly number[];
  maxTokens: readonly number[];
  balancedness: readonly number[];
}>;

/** Arrays over layers, unless they are per step. */
export type StepLoadReport = Readonly<{
  rowsPerStep: readonly number[];
  totals: Readonly<{
    loads: readonly (readonly number[])[];
    maxOverMean: readonly (number | null)[];
    meanOverMax: readonly (number | null)[];
  }>;
  sglang: Readonly<{
    balancedness: readonly number[];
    last10: number | null;
    last100: number | null;
    last1000: number | null;
  }>;
  vllm: Balancedness;
  vllmBeforeFix: Balancedness;
  trtllm: Readonly<{ imbalanceRatio: readonly (number | null)[]; average: number | null }>;
  work: Readonly<{
    stepMaxSum: readonly number[];
    maxOfTotals: readonly number[];
    meanSum: readonly number[];
    stepMaxOverMean: readonly (number | null)[];
    totalMaxOverMean: readonly (number | null)[];
  }>;
  distinctExperts: Readonly<{ mean: readonly (number | null)[]; expectedUniform: number | null }>;
}>;

type BalancednessLists = { avgTokens: number[]; maxTokens: number[]; balancedness: number[] };

/** Is fed with the counts of one pass after another. */
export class StepLoads {
  readonly #placement: Placement;
  readonly #numExperts: number;
  readonly #topK: number;
  readonly #totals: readonly Float64Array[];
  readonly #loads: readonly Float64Array[];
  readonly #stepMaxSum: Float64Array;
  readonly #imbalance: Float64Array;
  readonly #distinct: Float64Array;
  #expectedDistinct = 0;
  readonly #rowsPerStep: number[] = [];
  readonly #sglang: number[] = [];
  readonly #vllm: BalancednessLists = { avgTokens: [], maxTokens: [], balancedness: [] };
  readonly #vllmBeforeFix: BalancednessLists = { avgTokens: [], maxTokens: [], balancedness: [] };

  constructor(placement: Placement, { numExperts, topK }: Readonly<{ numExperts: number; topK: number }>) {
    const numLayers = placement.layers.length;
    const perGpu = (): Float64Array[] => Array.from({ length: numLayers }, () => new Float64Array(placement.numGpus));
    this.#placement = placement;
    this.#numExperts = numExperts;
    this.#topK = topK;
    this.#totals = perGpu();
    this.#loads = perGpu();
    this.#stepMaxSum = new Float64Array(numLayers);
    this.#imbalance = new Float64Array(numLayers);
    this.#distinct = new Float64Array(numLayers);
  }

  /** `counts`: selections of the pass, `[L, E]`. */
  add(counts: Uint32Array, numRows: number): void {
    const numExperts = this.#numExperts;
    const { numGpus, layers } = this.#placement;
    let utilization = 0;
    let avgTokens = 0;
    let maxTokens = 0;
    this.#rowsPerStep.push(numRows);
    this.#expectedDistinct += numExperts * (1 - (1 - this.#topK / numExperts) ** numRows);
    for (const [l, loads] of this.#loads.entries()) {
      const layerCounts = counts.subarray(l * numExperts, (l + 1) * numExperts);
      loads.fill(0);
      addGpuLoads(layers[l]!, layerCounts, loads);
      const total = this.#totals[l]!;
      loads.forEach((load, g) => (total[g]! += load));
      const max = greatest(loads);
      const average = sum(loads) / numGpus;
      utilization += (average + SGLANG_EPSILON) / (max + SGLANG_EPSILON);
      avgTokens += average;
      maxTokens += max;
      this.#stepMaxSum[l]! += max;
      this.#imbalance[l]! += quotient(max - average, average) ?? 0;
      this.#distinct[l]! += layerCounts.reduce((distinct, count) => distinct + Number(count > 0), 0);
    }
    this.#sglang.push(quotient(utilization, layers.length) ?? 1);
    push(this.#vllm, avgTokens, maxTokens);
    this.#addBeforeFix();
  }

  report(): StepLoadReport {
    const numSteps = this.#rowsPerStep.length;
    const totals = this.#totals;
    const maxima = totals.map(greatest);
    const means = totals.map((loads) => sum(loads) / loads.length);
    const maxOverMean = maxima.map((max, l) => quotient(max, means[l]!));
    const imbalanceRatio = Array.from(this.#imbalance, (ratios) => quotient(ratios, numSteps));
    const last = (count: number): number | null => mean(this.#sglang.slice(-count));
    return {
      rowsPerStep: this.#rowsPerStep,
      totals: {
        loads: totals.map((loads) => [...loads]),
        maxOverMean,
        meanOverMax: maxima.map((max, l) => quotient(means[l]!, max)),
      },
      sglang: { balancedness: this.#sglang, last10: last(10), last100: last(100), last1000: last(1000) },
      vllm: this.#vllm,
      vllmBeforeFix: this.#vllmBeforeFix,
      trtllm: { imbalanceRatio, average: mean(imbalanceRatio.filter((ratio) => ratio !== null)) },
      work: {
        stepMaxSum: [...this.#stepMaxSum],
        maxOfTotals: maxima,
        meanSum: means,
        stepMaxOverMean: Array.from(this.#stepMaxSum, (work, l) => quotient(work, means[l]!)),
        totalMaxOverMean: maxOverMean,
      },
      distinctExperts: {
        mean: Array.from(this.#distinct, (distinct) => quotient(distinct, numSteps)),
        expectedUniform: quotient(this.#expectedDistinct, numSteps),
      },
    };
  }

  /** vLLM took mean and maximum over layers, and summed them over GPUs: a GPU that is hot in every layer scores 1. */
  #addBeforeFix(): void {
    let avgTokens = 0;
    let maxTokens = 0;
    for (let gpu = 0; gpu < this.#placement.numGpus; gpu++) {
      const perLayer = this.#loads.map((loads) => loads[gpu]!);
      avgTokens += mean(perLayer) ?? 0;
      maxTokens += greatest(perLayer);
    }
    push(this.#vllmBeforeFix, avgTokens, maxTokens);
  }
}

function push(lists: BalancednessLists, avgTokens: number, maxTokens: number): void {
  lists.avgTokens.push(avgTokens);
  lists.maxTokens.push(maxTokens);
  lists.balancedness.push(quotient(avgTokens, maxTokens) ?? 0);
}
