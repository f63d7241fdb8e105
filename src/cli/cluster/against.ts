/**
 * Virtual clusters beside real ranks: the same requests, on as many ranks, with costs measured on one rank alone. So
 * what a bench of several ranks shows is not told to the model, and the error says what the model is worth.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { ServedBefore } from '../../sim/cluster/cluster-options.ts';
import { parseCosts } from '../../sim/cluster/costs.ts';
import type { RankReport } from '../bench/report/rank-report.ts';
import { csvText } from '../bench/report/csv.ts';
import { writeOutputs } from '../bench/report/output-files.ts';
import { textTable } from '../bench/report/text-table.ts';
import { wrapped } from '../bench/report/terminal.ts';
import { checkoutCommit } from '../environment.ts';
import type { ClusterCell } from './cluster-cell.ts';
import { runCell, type ClusterFigures } from './cluster-figures.ts';
import { cellOf, readText, type ClusterFlags } from './cluster-flags.ts';
import { csvFile } from './cluster-report.ts';

/** Of one cell of a bench. */
type RealRanks = Readonly<{
  design: string;
  optInShare: number;
  tokensPerSecond: number;
  /** Of the first rank. */
  stepP50Ms: number;
  stepP99Ms: number;
}>;

/** What a file of `bench --lockstep --json` holds of what is compared. */
type RealBench = Readonly<{
  numEngines: number;
  tensorParallel: number;
  model: string;
  concurrency: number;
  queueDepth: number;
  served: ServedBefore;
  cells: readonly RealRanks[];
}>;

type Compared = Readonly<{ bench: RealBench; real: RealRanks; virtual: readonly ClusterFigures[] }>;

/** Runs of the model, each with another seed. */
const NUM_SEEDS = 5;

/** Throws BAD_FILE for files that are no such bench. */
export async function compareWithBench(files: readonly string[], flags: ClusterFlags): Promise<void> {
  const texts = files.map((file) => ({ file, text: readText(file) }));
  const benches = texts.flatMap(({ file, text }) => benchesOf(text, file));
  const single = texts.find(({ text }) => hasCosts(text));
  if (flags.costs === undefined && single === undefined) {
    const wanted = 'a bench of one rank among them, or --costs FILE: the model must not be told what it shall find';
    throw RoutedExpertsError.of('BAD_VALUE', '--against', files.join(','), wanted);
  }
  const costsText = flags.costs === undefined ? singleOf(single!.text) : readText(flags.costs);
  const costs = parseCosts(costsText, flags.costs ?? single!.file);
  const compared = benches.flatMap((bench) =>
    bench.cells.map((real): Compared => ({
      bench,
      real,
      virtual: Array.from({ length: NUM_SEEDS }, (_, i) => runCell(virtualCell(bench, real, flags, costs, i))),
    })),
  );
  const broken = compared.flatMap(({ virtual }) => virtual).find((figures) => figures.broken !== null);
  if (broken !== undefined) process.exitCode = 1;
  const rows = compared.map(figuresOf);
  writeOutputs(csvFile(flags), { json: null, csv: comparedCsv(rows) });
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify({ modelled: true, commit: checkoutCommit(), costs, compared: rows })}\n`);
    return;
  }
  const lines = [
    `virtual ranks, modelled, beside real ones; ${NUM_SEEDS} seeds each; commit ${checkoutCommit() ?? 'unknown'}`,
    `costs: ${costs.source}`,
    comparedTable(rows),
    'error: virtual by real, less one. The model knows the passes of a single rank, and no other rank.',
    ...(broken === undefined ? [] : [`${broken.broken!.law} broken: ${broken.broken!.what}`]),
  ];
  process.stdout.write(`${lines.map((line) => (line.includes('\n') ? line : wrapped(line, '  '))).join('\n')}\n`);
}

function virtualCell(
  bench: RealBench,
  { design, optInShare }: RealRanks,
  flags: ClusterFlags,
  costs: ClusterCell['costs'],
  seed: number,
): ClusterCell {
  const { numEngines, tensorParallel, model, concurrency, queueDepth, served } = bench;
  const size = { dataParallel: numEngines, tensorParallel, nodes: 1 };
  return {
    ...cellOf({ ...flags, ...size }, design),
    model,
    concurrency: Math.ceil(concurrency / numEngines),
    queueDepth,
    maxNumBatchedTokens: served.engine.maxNumBatchedTokens,
    served,
    optInShare,
    costs,
    warmUp: 0,
    // The requests end the run.
    duration: Number.MAX_SAFE_INTEGER,
    seed,
  };
}

type Figure = Readonly<{ real: number; virtual: number; error: number }>;
type ComparedRow = Readonly<{
  cell: string;
  ranks: number;
  tokensPerSecond: Figure;
  stepP50Ms: Figure;
  stepP99Ms: Figure;
}>;

function figuresOf({ bench, real, virtual }: Compared): ComparedRow {
  const figure = (measured: number, of: (figures: ClusterFigures) => number): Figure => {
    const mean = virtual.reduce((sum, figures) => sum + of(figures), 0) / virtual.length;
    return { real: measured, virtual: mean, error: mean / measured - 1 };
  };
  return {
    cell: real.design === 'off' ? 'off' : `${real.design} ${(100 * real.optInShare).toFixed(0)} %`,
    ranks: bench.numEngines * bench.tensorParallel,
    tokensPerSecond: figure(real.tokensPerSecond, ({ tokensPerSecond }) => tokensPerSecond),
    stepP50Ms: figure(real.stepP50Ms, ({ stepMs }) => stepMs?.p50 ?? Number.NaN),
    stepP99Ms: figure(real.stepP99Ms, ({ stepMs }) => stepMs?.p99 ?? Number.NaN),
  };
}

const FIGURES = [
  ['tokens/s', 'tokens_per_s', 'tokensPerSecond', 0],
  ['step p50, ms', 'step_p50_ms', 'stepP50Ms', 1],
  ['step p99, ms', 'step_p99_ms', 'stepP99Ms', 1],
] as const;

function comparedTable(rows: readonly ComparedRow[]): string {
  const heads = FIGURES.map(([head]) => ({ head: `${head}\nreal / virtual, error`, align: 'right' as const }));
  return textTable(
    [{ head: 'cell', align: 'left' }, { head: 'ranks', align: 'right' }, ...heads],
    rows.map((row) => [
      row.cell,
      `${row.ranks}`,
      ...FIGURES.map(([, , key, digits]) => {
        const { real, virtual, error } = row[key];
        const percent = `${error > 0 ? '+' : ''}${(100 * error).toFixed(1)} %`;
        return `${real.toFixed(digits)} / ${virtual.toFixed(digits)}, ${percent}`;
      }),
    ]),
  );
}

function comparedCsv(rows: readonly ComparedRow[]): string {
  const heads = FIGURES.flatMap(([, name]) => [`${name}_real`, `${name}_virtual`, `${name}_error`]);
  const lines = rows.map((row) => [
    row.cell,
    row.ranks,
    ...FIGURES.flatMap(([, , key]) => [row[key].real, row[key].virtual, row[key].error]),
  ]);
  return csvText(['cell', 'ranks', ...heads], lines);
}

/** A bench's file, or each bench of a sweep's. */
function partsOf(text: string): Record<string, unknown>[] {
  const value = JSON.parse(text) as Record<string, unknown> | null;
  const results = value?.['results'];
  return Array.isArray(results) ? (results as Record<string, unknown>[]) : [value ?? {}];
}

function hasCosts(text: string): boolean {
  return partsOf(text).some(({ costs }) => typeof costs === 'object' && costs !== null);
}

function singleOf(text: string): string {
  return JSON.stringify(partsOf(text).find(({ costs }) => typeof costs === 'object' && costs !== null));
}

function benchesOf(text: string, file: string): RealBench[] {
  const bad = (problem: string): RoutedExpertsError =>
    RoutedExpertsError.of('BAD_FILE', file, `${problem}; make one with "bench --lockstep --ranks N --json FILE"`);
  let parts: Record<string, unknown>[];
  try {
    parts = partsOf(text);
  } catch (error) {
    throw bad((error as Error).message);
  }
  return parts.map((part) => {
    const { options, requests, cells } = part as BenchJson;
    if (!Array.isArray(requests) || !Array.isArray(cells) || options?.session?.engine === undefined) {
      throw bad('holds no bench of ranks in lockstep');
    }
    const { session, dataParallel, mode } = options;
    if (mode.kind !== 'closed') throw bad('is of an open loop, whose arrivals set its rate');
    return {
      numEngines: dataParallel.size,
      tensorParallel: session.numRanks,
      model: session.model.name,
      concurrency: mode.concurrency,
      queueDepth: session.queueDepth,
      served: { engine: session.engine, requests },
      cells: cells.map(({ design, optInShare, tokensPerSecond, ranks }): RealRanks => {
        const first = ranks?.[0];
        if (first === undefined) throw bad(`has no ranks in lockstep for ${design}`);
        return { design, optInShare, tokensPerSecond, stepP50Ms: first.stepMs.p50, stepP99Ms: first.stepMs.p99 };
      }),
    };
  });
}

type BenchJson = Readonly<{
  requests?: ServedBefore['requests'];
  options?: Readonly<{
    session: Readonly<{
      engine: ServedBefore['engine'];
      numRanks: number;
      queueDepth: number;
      model: { name: string };
    }>;
    dataParallel: Readonly<{ size: number }>;
    mode: Readonly<{ kind: 'closed'; concurrency: number } | { kind: 'open' }>;
  }>;
  cells?: readonly Readonly<{
    design: string;
    optInShare: number;
    tokensPerSecond: number;
    ranks?: readonly RankReport[] | null;
  }>[];
}>;
