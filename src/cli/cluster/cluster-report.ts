/** Virtual clusters on the terminal, as JSON and as CSV. */

import { EXPERIMENTS, EXPERIMENTS_LEGEND, experimentsTable } from '../bench/experiments/experiments.ts';
import { writeOutputs, type OutputFiles } from '../bench/report/output-files.ts';
import { csvText } from '../bench/report/csv.ts';
import { ranksTable, spreadText } from '../bench/report/rank-report.ts';
import { wrapped } from '../bench/report/terminal.ts';
import { textTable } from '../bench/report/text-table.ts';
import { checkoutCommit } from '../environment.ts';
import type { ReportFlags } from '../campaign/core/kind.ts';
import type { ClusterCell, ClusterMode } from './cluster-cell.ts';
import type { ClusterFigures } from './cluster-figures.ts';
import { EventLog } from '../../sim/event-log.ts';
import { scaleFigure } from './scale-figure.ts';

type Reported = Readonly<{
  mode: ClusterMode;
  figures: readonly ClusterFigures[];
  seconds: number | null;
  flags: ReportFlags;
}>;

const EXIT = { wrong: 1, stall: 1, crash: 1, stands: 2 } as const;

export function reportClusters(reported: Reported): void {
  const { mode, figures, seconds, flags } = reported;
  const broken = figures.find((each) => each.broken !== null)?.broken;
  if (broken) process.exitCode = EXIT[broken.kind];
  // In a table a cluster that stands still is a result.
  else if (mode === 'cells' && figures.some(({ stall }) => stall !== null)) process.exitCode = EXIT.stands;
  writeOutputs(csvFile(flags), { json: null, csv: clusterCsv(figures) });
  process.stdout.write(
    flags.json === true
      ? `${JSON.stringify({ mode, modelled: true, commit: checkoutCommit(), seconds, clusters: figures })}\n`
      : `${renderClusters(reported)}\n`,
  );
}

/** The file of `--csv`. What `--json` asks for is printed. */
export function csvFile({ csv }: ReportFlags): OutputFiles {
  return csv === undefined ? {} : { csv };
}

export function renderClusters({ mode, figures, seconds }: Reported): string {
  const lines = [headline(figures[0]!.cell, mode), ...bodyOf(mode, figures)];
  for (const { cell, broken, stall } of figures) {
    const name = figures.length === 1 ? '' : `${cell.label}: `;
    if (stall !== null) {
      lines.push(`${name}TIME-OUT at ${seconds1(stall.at)}: the ranks stand still: ${stall.report}`);
    }
    if (broken === null) continue;
    const where = broken.engine === null ? '' : `, engine ${broken.engine}`;
    lines.push(`${name}${broken.law} broken (${broken.kind})${where}: ${broken.what}`, ...broken.story);
  }
  const numBroken = figures.filter(({ broken }) => broken !== null).length;
  const laws = numBroken === 0 ? 'every law kept' : `${numBroken} of ${figures.length} clusters broke a law`;
  const took = seconds === null ? '' : `, in ${seconds.toFixed(1)} s`;
  lines.push(`${laws}; event log ${hashOf(figures)}${took}`);
  return lines.map((line) => (line.includes('\n') ? line : wrapped(line, '  '))).join('\n');
}

/** Of one cluster its own; of several one of all. */
function hashOf(figures: readonly ClusterFigures[]): string {
  if (figures.length === 1) return figures[0]!.hash;
  const log = new EventLog(false);
  for (const { hash } of figures) for (const half of [hash.slice(0, 8), hash.slice(8)]) log.word(Number(`0x${half}`));
  return log.hash;
}

function bodyOf(mode: ClusterMode, figures: readonly ClusterFigures[]): string[] {
  switch (mode) {
    case 'cells':
      return figures.length === 1 ? oneCluster(figures[0]!) : [clustersTable(figures), LEGEND];
    case 'experiments':
      return experiments(figures);
    case 'scale':
      return [clustersTable(figures), LEGEND, scaleFigure(figures)];
    case 'seeds':
      return seedsLines(figures);
    default:
      return mode satisfies never;
  }
}

const LEGEND =
  'step: until all ranks have run it; single: own passes of every rank; slowest: of each pass the rank that took ' +
  'longest; drawn: what the slowest were if passes had nothing to do with each other';

/** What all clusters of a report have in common. */
function headline(cell: ClusterCell, mode: ClusterMode): string {
  const { costs, model, concurrency, duration, seed, realRanks, dispatch, lock } = cell;
  const { pass } = costs;
  const size = mode === 'scale' ? `TP ${cell.tensorParallel}` : sizeText(cell);
  const real = realRanks === 'all' ? 'every rank runs its half' : 'the first rank of an engine runs its half';
  return [
    `virtual cluster: every time is modelled · ${size} · ${model} · ${dispatch} dispatch`,
    `${concurrency} requests in flight an engine, ${(100 * cell.optInShare).toFixed(0)} % opted in · ` +
      `${seconds1(duration)} of virtual time · seed ${seed} · ${real} · a lock for each ${lock} · ` +
      `--collective-timeout ${seconds1(cell.collectiveTimeout)}`,
    `costs: ${costs.source}; a pass takes ${pass.fixedUs / 1e3} ms + ${pass.perTokenUs} µs a token + ` +
      `${pass.restUs[0]} to ${pass.restUs.at(-1)} µs; commit ${checkoutCommit() ?? 'unknown'}`,
    ...(cell.faults.length === 0 ? [] : [`faults: ${cell.faults.join(', ')}`]),
  ]
    .map((line) => wrapped(line, '  '))
    .join('\n');
}

function sizeText({ numEngines, tensorParallel, numNodes }: ClusterCell): string {
  const numRanks = numEngines * tensorParallel;
  const nodes = `${numNodes} ${numNodes === 1 ? 'node' : 'nodes'}`;
  return `DP ${numEngines} × TP ${tensorParallel}, EP ${numRanks} on ${nodes}`;
}

function oneCluster(figures: ClusterFigures): string[] {
  const { counts, cell, slowest, straggler, latecomer, stepMs, declared, ranks } = figures;
  const lines = [
    `${cell.design}: ${figures.tokensPerSecond.toFixed(0)} tokens/s; ${figures.numPasses} passes of the group, ` +
      `${counts.steps} steps and ${counts.dummies} dummies of engines`,
  ];
  if (stepMs !== null && slowest !== null && straggler !== null) {
    lines.push(
      `step ms p50/p99/max: ${spreadText(stepMs)}; last most: rank ${straggler.rank}, ` +
        `${(100 * straggler.lastShare).toFixed(0)} % of passes`,
      clustersTable([figures]),
      LEGEND,
    );
  }
  if (latecomer !== null && latecomer.lateShare >= WORTH_TELLING) {
    lines.push(`late for most passes: rank ${latecomer.rank}, for ${(100 * latecomer.lateShare).toFixed(0)} % of them`);
  }
  const gaps = Object.entries(declared).map(([law, count]) => `${law} ${count}×`);
  lines.push(
    `requests: ${counts.sent} sent, ${counts.finished} finished, ${counts.aborted} aborted, ${counts.failed} failed`,
    `rows: ${counts.rowsDelivered} delivered, each its request's own; ${counts.rowsMissing} missing` +
      (gaps.length === 0 ? '' : `; given up by ${cell.design}: ${gaps.join(', ')}`),
    trafficTable(figures),
  );
  if (ranks !== null) lines.push(ranksTable([{ label: cell.design, ranks }]));
  return lines;
}

function clustersTable(figures: readonly ClusterFigures[]): string {
  const heads = [
    'ranks',
    'tokens/s',
    'step ms\np50/p99/max',
    'single\nmean/p99',
    'slowest\nmean/p99',
    'drawn\nmean/p99',
  ];
  return textTable(
    [
      { head: 'cluster', align: 'left' },
      ...heads.map((head) => ({ head, align: 'right' as const })),
      { head: 'last most', align: 'right' },
      { head: 'time-out', align: 'left' },
    ],
    figures.map(({ cell, numRanks, tokensPerSecond, stepMs, slowest, straggler, stall }) => [
      cell.label,
      `${numRanks}`,
      tokensPerSecond.toFixed(0),
      stepMs === null ? '–' : spreadText(stepMs),
      ...(slowest === null
        ? ['–', '–', '–']
        : [slowest.single, slowest.slowest, slowest.drawn].map(
            ({ mean, p99 }) => `${mean.toFixed(2)}/${p99.toFixed(2)}`,
          )),
      straggler === null ? '–' : `rank ${straggler.rank} ${(100 * straggler.lastShare).toFixed(0)} %`,
      stall === null ? 'none' : `at ${seconds1(stall.at)}`,
    ]),
  );
}

/** Share of passes that a rank is late for. */
const WORTH_TELLING = 0.05;

const MOST_NODES = 8;

function trafficTable({ nodes, cell }: ClusterFigures): string {
  const perSecond = (bytes: number): string => (bytes / cell.duration).toFixed(2);
  const rows = nodes
    .slice(0, MOST_NODES)
    .map(({ deviceToHost, hostToEngine, toClients, exchange }, node) => [
      `node ${node}`,
      ...[deviceToHost, hostToEngine, toClients, exchange].map(perSecond),
    ]);
  const more = nodes.length > MOST_NODES ? `\nand ${nodes.length - MOST_NODES} nodes more` : '';
  const heads = ['device→host', 'host→engine', 'to clients', 'all-to-all, wire'];
  const columns = heads.map((head) => ({ head, align: 'right' as const }));
  return `${textTable([{ head: 'rows, MB/s', align: 'left' }, ...columns], rows)}${more}`;
}

function experiments(figures: readonly ClusterFigures[]): string[] {
  const off = figures[0]!.tokensPerSecond;
  const rows = figures.map(({ tokensPerSecond, stepMs, straggler, stall }, i) => ({
    ...EXPERIMENTS[i]!,
    tokensPerSecond,
    ratio: i === 0 ? null : (tokensPerSecond / off).toFixed(3),
    stepMs,
    straggler,
    timeoutsMs: stall === null ? [] : [stall.at / 1e3],
  }));
  const late = figures.flatMap(({ cell, latecomer }) =>
    latecomer === null || latecomer.lateShare < WORTH_TELLING
      ? []
      : [`${cell.label} rank ${latecomer.rank} ${(100 * latecomer.lateShare).toFixed(0)} %`],
  );
  const lateText = late.length === 0 ? [] : [`late for most passes, before they begin: ${late.join(', ')}`];
  return [experimentsTable(rows), ...lateText, ...EXPERIMENTS_LEGEND];
}

function seedsLines(figures: readonly ClusterFigures[]): string[] {
  const rates = figures.map(({ tokensPerSecond }) => tokensPerSecond).sort((a, b) => a - b);
  const sum = (of: (figures: ClusterFigures) => number): number => figures.reduce((total, each) => total + of(each), 0);
  return [
    `${figures.length} seeds: ${rates[0]!.toFixed(0)} to ${rates.at(-1)!.toFixed(0)} tokens/s, ` +
      `${sum(({ numPasses }) => numPasses)} passes, ${sum(({ counts }) => counts.rowsDelivered)} rows delivered, ` +
      `${figures.filter(({ stall }) => stall !== null).length} time-outs`,
  ];
}

/** A line for each cluster; what is not known is empty. */
export function clusterCsv(figures: readonly ClusterFigures[]): string {
  const columns: Readonly<Record<string, (figures: ClusterFigures) => string | number | null>> = {
    cluster: ({ cell }) => cell.label,
    design: ({ cell }) => cell.design,
    seed: ({ cell }) => cell.seed,
    engines: ({ cell }) => cell.numEngines,
    tensor_parallel: ({ cell }) => cell.tensorParallel,
    nodes: ({ cell }) => cell.numNodes,
    ranks: ({ numRanks }) => numRanks,
    tokens_per_s: ({ tokensPerSecond }) => tokensPerSecond,
    passes: ({ numPasses }) => numPasses,
    step_p50_ms: ({ stepMs }) => stepMs?.p50 ?? null,
    step_p99_ms: ({ stepMs }) => stepMs?.p99 ?? null,
    step_max_ms: ({ stepMs }) => stepMs?.max ?? null,
    single_mean_ms: ({ slowest }) => slowest?.single.mean ?? null,
    single_p99_ms: ({ slowest }) => slowest?.single.p99 ?? null,
    slowest_mean_ms: ({ slowest }) => slowest?.slowest.mean ?? null,
    slowest_p99_ms: ({ slowest }) => slowest?.slowest.p99 ?? null,
    drawn_mean_ms: ({ slowest }) => slowest?.drawn.mean ?? null,
    drawn_p99_ms: ({ slowest }) => slowest?.drawn.p99 ?? null,
    straggler: ({ straggler }) => straggler?.rank ?? null,
    latecomer: ({ latecomer }) => latecomer?.rank ?? null,
    latecomer_share: ({ latecomer }) => latecomer?.lateShare ?? null,
    straggler_share: ({ straggler }) => straggler?.lastShare ?? null,
    timeout_s: ({ stall }) => (stall === null ? null : stall.at / 1e6),
    rows_delivered: ({ counts }) => counts.rowsDelivered,
    rows_missing: ({ counts }) => counts.rowsMissing,
    broken_law: ({ broken }) => broken?.law ?? null,
    event_log: ({ hash }) => hash,
  };
  return csvText(
    Object.keys(columns),
    figures.map((each) => Object.values(columns).map((of) => of(each))),
  );
}

function seconds1(us: number): string {
  return `${Number((us / 1e6).toFixed(3))} s`;
}
