/** What `inspect` prints: tables that fit a terminal of 100 columns, each number with its definition. */

import type { MetricName } from '../../analysis/load/metric-definitions.ts';
import { METRIC_DEFINITIONS } from '../../analysis/load/metric-definitions.ts';
import type { FaultReport } from '../../analysis/load/data-faults.ts';
import type { InspectionReport, LayerReport, SampleReport } from '../../analysis/inspection.ts';
import { greatest, mean } from '../../analysis/statistics.ts';
import { placementText, stepsText } from './steps-text.ts';
import { columns, number, percent } from './text-table.ts';

/** Layers that are listed without being asked for: the least balanced ones. */
const FEW_LAYERS = 12;

export type TextOptions = Readonly<{ allLayers: boolean; keepsAll: boolean }>;

export function reportText(report: InspectionReport, options: TextOptions): string[] {
  return [
    ...headline(report),
    '',
    ...faultText(report.faults, report, options.keepsAll),
    '',
    ...layerTable(report, options.allLayers),
    '',
    ...summaryTable(report),
    '',
    ...deadText(report),
    ...(report.sample === null ? [] : ['', ...sampleText(report.sample, report)]),
    ...(report.steps === null ? [] : ['', ...stepsText(report.steps, report.perLayer)]),
    ...(report.placement === null ? [] : ['', ...placementText(report.placement)]),
  ];
}

function headline({
  form,
  rows,
  perLayer,
  topK,
  numExperts,
  numExpertsIsKnown,
  ...report
}: InspectionReport): string[] {
  const { unknown, sharedRows } = report;
  const experts = numExpertsIsKnown ? `${numExperts} experts` : `at least ${numExperts} experts (greatest id + 1)`;
  const counted = rows.counted === rows.read ? `${rows.read} rows` : `${rows.counted} of ${rows.read} rows counted`;
  const parts = [
    counted,
    `${perLayer.length} layers × top ${topK}`,
    experts,
    ...(rows.requests === null ? [] : [`${rows.requests} requests`]),
    ...(rows.passes === null ? [] : [`${rows.passes} passes`]),
  ];
  const lines = [`${form}: ${parts.join(', ')}`];
  if (sharedRows !== null && sharedRows > 0) {
    lines.push(
      `${rowsOf(sharedRows)} of shared prefixes: GPUs saw them once if prefixes were cached; here each counts`,
    );
  }
  if (unknown.length > 0) lines.push(`unknown, since the form does not carry it: ${unknown.map(inWords).join(', ')}`);
  return lines;
}

const WORDS: Readonly<Record<string, string>> = {
  experts: 'the number of experts',
  layers: 'layer numbers',
  requests: 'request boundaries',
  promptLengths: 'prompt lengths',
  steps: 'forward passes',
  tokens: 'token ids',
};

function inWords(name: string): string {
  return WORDS[name] ?? name;
}

function faultText(faults: FaultReport, { rows, perLayer }: InspectionReport, keepsAll: boolean): string[] {
  const found: string[] = [];
  const leftOut = keepsAll ? 'They are counted, as told.' : 'They are left out; --all-rows counts them.';
  if (faults.numRunRows > 0) {
    found.push(
      `${faults.numRunRows} rows (${percent(faults.numRunRows / rows.read)}) stand in ${faults.numRuns} long ` +
        `run${faults.numRuns === 1 ? '' : 's'} of equal rows:`,
      `  no traffic, but profiling, warm-up or padding. ${leftOut}`,
    );
    for (const { from, to, ids, distinctWeights } of faults.runs.slice(0, MOST_RUNS)) {
      const weights = distinctWeights === null ? '' : `, ${distinctWeights} different weights`;
      found.push(`  rows ${from} to ${to - 1}: the first layer has ids ${ids.join(', ')}${weights}`);
    }
  }
  const { from: runStart, length } = faults.longestCounted;
  if (length >= ODD_RUN) {
    found.push(`${length} equal rows follow one another from row ${runStart} on: too few to be left out, yet odd.`);
  }
  if (faults.zeros.numRows > 0) {
    const { numRows, ranges } = faults.zeros;
    found.push(`${rowsOf(numRows)} of zeros only, from row ${ranges[0]![0]} on: no routing. ${leftOut}`);
  }
  if (faults.missing.numRows > 0) {
    const ranges = faults.missing.ranges.slice(0, MOST_RUNS).map(([from, to]) => `${from} to ${to - 1}`);
    const missing = rowsOf(faults.missing.numRows);
    found.push(`${missing} missing (−1): ${ranges.join('; ')}. They are never counted.`);
  }
  if (faults.repeated.numRows > 0) {
    const { numRows, firstRow } = faults.repeated;
    found.push(
      `${rowsOf(numRows)} with an expert twice in a layer, the first is row ${firstRow}: no top-K does that.`,
      '  Columns of two layers, or ids of another table?',
    );
  }
  if (faults.numEmptyEntries > 0) found.push(`${faults.numEmptyEntries} single ids are −1, in rows that have others.`);
  const dense = perLayer.filter((_, l) => faults.zeroLayerRows[l] === rows.counted && rows.counted > 0);
  if (dense.length > 0) {
    found.push(`layers ${dense.map(({ layer }) => layer).join(', ')} have zeros only: dense layers. Not counted.`);
  }
  const partly = perLayer.filter((_, l) => faults.zeroLayerRows[l]! > 0 && faults.zeroLayerRows[l]! < rows.counted);
  if (partly.length > 0) found.push(`layers ${partly.map(({ layer }) => layer).join(', ')} have zeros in some rows.`);
  if (faults.weights !== null && faults.weights.numTiedRows > 0) {
    found.push(`${faults.weights.numTiedRows} rows have every weight 1/K: ties, as of a router without input.`);
  }
  return found.length === 0 ? ['nothing wrong with the data was found'] : ['what is wrong with the data:', ...found];
}

const MOST_RUNS = 5;

/** Real traffic repeats a whole row two or three times at most. */
const ODD_RUN = 8;

function rowsOf(numRows: number): string {
  return numRows === 1 ? 'one row' : `${numRows} rows`;
}

const LAYER_COLUMNS = ['layer', 'busiest', 'share', 'max/mean', 'cv', 'cv chance', 'gini', 'bits', 'dead', 'overlap'];

function layerTable({ perLayer, numExperts, unknown }: InspectionReport, allLayers: boolean): string[] {
  const byImbalance = perLayer.toSorted((a, b) => (b.maxOverMean ?? 0) - (a.maxOverMean ?? 0));
  const isCut = !allLayers && perLayer.length > 2 * FEW_LAYERS;
  const shown = isCut ? byImbalance.slice(0, FEW_LAYERS) : perLayer;
  const rows = shown.map((layer) => [
    String(layer.layer),
    layer.argmax === null ? '–' : String(layer.argmax),
    percent(layer.topShare),
    number(layer.maxOverMean),
    number(layer.cvSample),
    number(layer.cvUniform),
    number(layer.gini),
    number(layer.entropyBits),
    String(layer.total === 0 ? '–' : layer.dead),
    overlapText(layer),
  ]);
  const title = isCut
    ? `the ${FEW_LAYERS} least balanced of ${perLayer.length} layers (--all-layers shows all)`
    : 'layers';
  return [
    `${title}; even routing has ${Math.log2(numExperts).toFixed(2)} bits`,
    ...columns(LAYER_COLUMNS, rows),
    ...(unknown.includes('requests')
      ? ['overlap is of neighbouring rows: request boundaries are unknown, they may be of different requests']
      : []),
  ];
}

function overlapText({ overlap, chancePopularity }: LayerReport): string {
  if (overlap === null || chancePopularity === null) return '–';
  return `${overlap.toFixed(3)} (${(overlap / chancePopularity).toFixed(2)} × chance)`;
}

const SUMMARY: readonly MetricName[] = [
  'maxOverMean',
  'topShare',
  'cvSample',
  'cvUniform',
  'gini',
  'jain',
  'entropyNormalized',
  'effectiveExperts',
  'maxVio',
  'minVio',
  'avgVio',
  'overlap',
  'chancePopularity',
];

function summaryTable({ perLayer }: InspectionReport): string[] {
  const layers = perLayer.filter(({ total }) => total > 0);
  const rows = SUMMARY.map((name) => {
    const values = layers.map((layer) => layer[name as keyof LayerReport] as number | null);
    const defined = values.filter((value) => value !== null);
    const least = defined.length === 0 ? null : -greatest(defined.map((value) => -value));
    const most = defined.length === 0 ? null : greatest(defined);
    return [name, number(mean(defined)), number(least), number(most), `  ${METRIC_DEFINITIONS[name]}`];
  });
  return columns(['over layers', 'mean', 'min', 'max', '  definition'], rows, 'definition');
}

function deadText({ perLayer, deadAfter, numExperts, topK, rows }: InspectionReport): string[] {
  const layers = perLayer.filter(({ total }) => total > 0);
  const dead = layers.reduce((sum, layer) => sum + layer.dead, 0);
  const chance = layers.reduce((sum, layer) => sum + layer.expectedDeadUniform, 0);
  const lines = [
    `dead: ${dead} of ${layers.length * numExperts} experts had no selection in ${rows.counted} rows; ` +
      `uniform routing would leave ${chance.toFixed(chance < 10 ? 2 : 0)}`,
  ];
  const few = deadAfter.filter((_, i) => i % Math.ceil(deadAfter.length / 8) === 0 || i === deadAfter.length - 1);
  const series = few.map(({ rows: count, dead: perLayerDead }) => {
    const uniform = numExperts * (1 - topK / numExperts) ** count;
    return `${count}: ${mean(perLayerDead)!.toFixed(1)} (${uniform.toFixed(1)})`;
  });
  if (series.length > 1) lines.push(`  a layer, after so many rows (uniform): ${series.join(', ')}`);
  const drifts = layers.map(({ drift }) => drift).filter(({ distance }) => distance !== null);
  if (drifts.length > 0) {
    const [distance, byChance, hot] = (['distance', 'chance', 'hotOverlap'] as const).map((name) =>
      mean(drifts.map((drift) => drift[name]!)),
    );
    lines.push(
      `drift: ${number(distance)} between neighbouring windows of ${drifts[0]!.windowRows} rows, ` +
        `${number(byChance)} if nothing changed; ${percent(hot)} of the busiest eighth stay`,
    );
  }
  return lines;
}

function sampleText({ numRows, cache, affinity, coactivation }: SampleReport, report: InspectionReport): string[] {
  const of = numRows === report.rows.counted ? `all ${numRows} rows` : `the first ${numRows} rows (--sample)`;
  const perSize = cache.sizes.map((size, i) => {
    const meanOf = (rates: readonly (readonly (number | null)[])[]): string =>
      percent(mean(rates.map((rate) => rate[i]!).filter((rate) => rate !== null)));
    return [String(size), percent(cache.chance[i]), meanOf(cache.staticSplit), meanOf(cache.lru)];
  });
  const hits = affinity.map(({ hitSplit }) => hitSplit).filter((rate) => rate !== null);
  const popular = affinity.map(({ popularitySplit }) => popularitySplit).filter((rate) => rate !== null);
  const lifts = coactivation.filter(({ pair }) => pair !== null).toSorted((a, b) => b.lift! - a.lift!);
  const best = lifts[0];
  return [
    `on ${of}:`,
    ...columns(['cache of m experts a layer', 'chance m/E', 'static', 'LRU'], perSize),
    `  static: ${METRIC_DEFINITIONS.staticSplit}`,
    `  LRU: ${METRIC_DEFINITIONS.lru}`,
    ...(hits.length === 0
      ? []
      : [
          `next layer predicted: ${percent(mean(hits))} of its experts, by popularity ${percent(mean(popular))}`,
          `  ${METRIC_DEFINITIONS.hitSplit}`,
        ]),
    ...(best === undefined
      ? []
      : [
          `pair: experts ${best.pair!.join(' and ')} of layer ${best.layer}, together in ${best.count} rows, ` +
            `${best.lift!.toFixed(1)} × chance`,
        ]),
  ];
}
