/** Everything that `inspect` finds in rows: fed a batch at a time, in the memory of counts and a sample. */

import type { Capture } from '../rows/captures/capture.ts';
import { rowWidth } from '../rows/captures/capture.ts';
import type { RowBatch, RowSource } from '../rows/row-batch.ts';
import type { Balance, BalanceSummary } from './load/balance.ts';
import { balanceOf, summaryOf } from './load/balance.ts';
import type { FaultReport } from './load/data-faults.ts';
import { RowSample } from './load/row-sample.ts';
import type { CountedRow } from './load/row-scan.ts';
import { RowScan } from './load/row-scan.ts';
import { sharedPrefix } from './load/shared-prefix.ts';
import { StepCounts } from './load/step-counts.ts';
import type { StepLoadReport } from './load/step-loads.ts';
import { StepLoads } from './load/step-loads.ts';
import type { DeadAfter, Drift } from './load/window-counts.ts';
import type { Prediction } from './locality/affinity.ts';
import { predictions } from './locality/affinity.ts';
import type { Coactivation } from './locality/coactivation.ts';
import { coactivations } from './locality/coactivation.ts';
import type { CacheReport } from './locality/expert-cache.ts';
import { cacheReport } from './locality/expert-cache.ts';
import { chanceByPopularity } from './locality/overlap.ts';
import type { EplbShape } from './placement/eplb.ts';
import type { PlacementPlan } from './placement/plan.ts';
import { planPlacement } from './placement/plan.ts';
import { linearPlacement } from './placement/placement.ts';
import type { Screening } from './placement/screening.ts';
import { Screener } from './placement/screening.ts';

export type InspectionOptions = Readonly<{
  /** Whether long runs of equal rows, and rows of zeros, count as traffic. */
  keepsAll?: boolean;
  /** Rows that caches, affinity and pairs are computed on; 0: none of these. */
  sampleRows: number;
  /** EP ranks; needs known passes and a known number of experts. */
  numRanks: number | null;
  /** A placement to judge. */
  eplb: EplbShape | null;
  windowSteps: number;
}>;

export type LayerReport = Balance &
  Readonly<{
    layer: number;
    /** Rows in which the layer has ids: the sample that `dead` rests on. */
    numRows: number;
    overlap: number | null;
    jaccard: number | null;
    chanceUniform: number;
    chancePopularity: number | null;
    drift: Drift;
  }>;

export type SampleReport = Readonly<{
  /** The first rows that count. */
  numRows: number;
  cache: CacheReport;
  affinity: readonly Prediction[];
  coactivation: readonly Coactivation[];
}>;

/** `null` or `unknown`: the form does not carry it. */
export type InspectionReport = Readonly<{
  form: string;
  rows: Readonly<{ read: number; counted: number; requests: number | null; passes: number | null }>;
  topK: number;
  numExperts: number;
  /** Whether the form or the caller said so; else it is the greatest id and one. */
  numExpertsIsKnown: boolean;
  /** Whether layer numbers are the form's; else layers are numbered from 0. */
  layersAreNamed: boolean;
  unknown: readonly string[];
  faults: FaultReport;
  counts: readonly Float64Array[];
  perLayer: readonly LayerReport[];
  summary: BalanceSummary;
  /** Pairs of rows behind `overlap`. */
  overlapPairs: number;
  deadAfter: readonly DeadAfter[];
  /** Rows whose tokens up to their own begin an earlier request, too: with a prefix cache a GPU computes them once. */
  sharedRows: number | null;
  sample: SampleReport | null;
  steps: (StepLoadReport & Readonly<{ numRanks: number }>) | null;
  placement: Readonly<{ screening: Screening | null; plan: PlacementPlan }> | null;
}>;

export class Inspection {
  readonly #source: RowSource;
  readonly #options: InspectionOptions;
  readonly #capture: Capture | null;
  readonly #scan: RowScan;
  readonly #sample: RowSample | null;
  readonly #steps: StepCounts | null = null;
  readonly #loads: StepLoads | null = null;
  readonly #screener: Screener | null = null;
  /** Of a capture: 1 for each row that counts. */
  readonly #counts: Uint8Array | null;
  #numRequests = 0;
  #numPasses = 0;

  /** `capture`: where all rows are held, so that its passes can be looked at in their own order. */
  constructor(source: RowSource, capture: Capture | null, options: InspectionOptions) {
    const { shape } = source;
    this.#source = source;
    this.#options = options;
    this.#capture = capture;
    this.#sample = options.sampleRows > 0 ? new RowSample(options.sampleRows, shape.numLayers * shape.topK) : null;
    this.#counts = capture === null ? null : new Uint8Array(capture.numRows);
    if (shape.numExperts !== null && (options.numRanks !== null || options.eplb !== null)) {
      const sizes = { numLayers: shape.numLayers, numExperts: shape.numExperts, topK: shape.topK };
      const numRanks = options.numRanks ?? options.eplb!.numGpus;
      this.#loads = new StepLoads(linearPlacement(sizes.numLayers, sizes.numExperts, numRanks), sizes);
      if (options.eplb !== null) {
        this.#screener = new Screener({ ...sizes, eplb: options.eplb, windowSteps: options.windowSteps });
      }
      this.#steps = new StepCounts(sizes, [this.#loads, ...(this.#screener === null ? [] : [this.#screener])]);
    }
    const followsSteps = this.#steps !== null && capture === null && source.knows.steps;
    this.#scan = new RowScan({
      shape,
      keepsAll: options.keepsAll === true,
      // Nobody is told of rows where nobody looks at them: there may be a billion.
      ...((this.#sample !== null || this.#counts !== null || followsSteps) && {
        onRow: (row: CountedRow): void => {
          this.#sample?.add(row);
          this.#counts?.fill(1, row.row, row.row + row.times);
          if (followsSteps) this.#steps?.add(row);
        },
      }),
      onStep: () => {
        this.#numPasses++;
        if (followsSteps) this.#steps?.endStep();
      },
    });
  }

  add(batch: RowBatch): void {
    if (batch.startsRequest) this.#numRequests++;
    this.#scan.add(batch);
  }

  end(): InspectionReport {
    const scan = this.#scan;
    scan.end();
    if (this.#capture !== null) this.#addSteps(this.#capture);
    const { shape, knows, form } = this.#source;
    const numExperts = scan.numExperts;
    const counts = scan.counts();
    const faults = scan.faults.report();
    const perLayer = this.#layerReports(counts, faults);
    return {
      form,
      rows: {
        read: scan.numRead,
        counted: scan.numCounted,
        requests: knows.requests ? this.#numRequests : null,
        passes: knows.steps ? this.#numPasses : null,
      },
      topK: shape.topK,
      numExperts,
      numExpertsIsKnown: shape.numExperts !== null,
      layersAreNamed: shape.layers !== null,
      unknown: Object.entries({ experts: shape.numExperts !== null, layers: shape.layers !== null, ...knows })
        .filter(([, isKnown]) => !isKnown)
        .map(([name]) => name),
      faults,
      counts,
      perLayer,
      summary: summaryOf(perLayer.filter(({ total }) => total > 0)),
      overlapPairs: scan.overlap.report().pairs,
      deadAfter: scan.windows.deadAfter(numExperts),
      sharedRows: this.#sharedRows(),
      sample: this.#sampleReport(numExperts),
      steps:
        this.#loads === null || !knows.steps
          ? null
          : { ...this.#loads.report(), numRanks: this.#options.numRanks ?? this.#options.eplb!.numGpus },
      placement: this.#placementReport(counts),
    };
  }

  #layers(): readonly number[] {
    const { layers, numLayers } = this.#source.shape;
    return layers ?? Array.from({ length: numLayers }, (_, layer) => layer);
  }

  #layerReports(counts: readonly Float64Array[], faults: FaultReport): LayerReport[] {
    const { topK } = this.#source.shape;
    const { overlap, jaccard } = this.#scan.overlap.report();
    const labels = this.#layers();
    return counts.map((layer, l): LayerReport => {
      const numRows = this.#scan.numCounted - (faults.zeroLayerRows[l] ?? 0);
      return {
        layer: labels[l]!,
        numRows,
        ...balanceOf(layer, { numRows, topK }),
        overlap: overlap[l] ?? null,
        jaccard: jaccard[l] ?? null,
        chanceUniform: topK / layer.length,
        chancePopularity: chanceByPopularity(layer, numRows, topK),
        drift: this.#scan.windows.drift(l, layer.length),
      };
    });
  }

  #addSteps(capture: Capture): void {
    const width = rowWidth(capture);
    for (const step of capture.steps ?? []) {
      let isEmpty = true;
      for (const [first, count] of step) {
        for (let row = first; row < first + count; row++) {
          if (this.#counts![row] === 0) continue;
          isEmpty = false;
          this.#steps?.add({ ids: capture.ids, at: row * width, times: 1 });
        }
      }
      if (!isEmpty) this.#numPasses++;
      this.#steps?.endStep();
    }
  }

  #sharedRows(): number | null {
    const prefix = this.#capture === null ? null : sharedPrefix(this.#capture);
    return prefix === null ? null : prefix.rows - prefix.distinctPrefixes;
  }

  #sampleReport(numExperts: number): SampleReport | null {
    if (this.#sample === null || numExperts === 0) return null;
    const { topK } = this.#source.shape;
    const capture = this.#sample.capture({ numExperts, topK, layers: this.#layers() });
    const sizes = [...new Set([topK, 2 * topK, Math.ceil(numExperts / 4), Math.ceil(numExperts / 2)])];
    const kept = sizes.filter((size) => size < numExperts).sort((a, b) => a - b);
    return {
      numRows: capture.numRows,
      cache: cacheReport(capture, kept),
      affinity: predictions(capture),
      coactivation: coactivations(capture),
    };
  }

  #placementReport(counts: readonly Float64Array[]): InspectionReport['placement'] {
    const shape = this.#options.eplb;
    if (shape === null) return null;
    return {
      screening: this.#source.knows.steps ? (this.#screener?.report() ?? null) : null,
      plan: planPlacement(counts, shape),
    };
  }
}
