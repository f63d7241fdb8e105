/** From the runs of a bench to its table and its JSON. */

import { DEFAULT_PREFIX_ROWS } from '../../capture/deltas/prefix-rows.ts';
import type { Environment } from '../environment.ts';
import type { SessionConfig } from '../../host/design-session.ts';
import type { BenchOptions } from './bench-options.ts';
import type { BenchRun } from './bench-run.ts';
import type { BenchResult } from './bench.ts';
import type { DataParallel } from './engines/bench-engines.ts';
import type { Ending } from './pair-schedule.ts';
import { cellName } from './plan.ts';
import { sumOfDeadlines } from '../../worker/thread/rank-usage.ts';
import { hitShare, percentiles, reportCells, type CellReport, type Percentiles } from './report/cell-report.ts';
import { deadlineLines } from './report/deadline-lines.ts';
import { rankReports, ranksTable, type RankReport } from './report/rank-report.ts';
import { legend, metricsTable, wrapped } from './report/terminal.ts';

export function renderTable(result: BenchResult): string {
  const reports = reportCells(result);
  const rows = reports.map((cell, i) => ({ label: cellName(result.cells[i]!), cell }));
  const table = metricsTable('design, opted in', rows, { comparesRates: result.options.mode.kind === 'closed' });
  const inLockstep = reports.flatMap(({ ranks }, i) =>
    ranks === null ? [] : [{ label: cellName(result.cells[i]!), ranks }],
  );
  const ranks = inLockstep.length === 0 ? [] : [ranksTable(inLockstep)];
  return [headline(result), table, legend(), ...ranks, footer(result, reports)].join('\n');
}

/** All that is told of a bench. It goes through JSON. */
export type BenchReport = Omit<BenchResult, 'options' | 'cells' | 'comparisons' | 'runs'> &
  Readonly<{
    seed: number;
    options: BenchResult['options'];
    cells: readonly CellReport[];
    runs: readonly ToldRun[];
  }>;

/** Every wait of every run would be most of the file. */
type ToldRun = Omit<BenchRun, 'served'> &
  Readonly<{
    served: Omit<BenchRun['served'], 'ttftMs' | 'itlMs' | 'ranks'> &
      Readonly<{ ttftMs: Percentiles; itlMs: Percentiles; ranks: readonly RankReport[] | null }>;
  }>;

export function toJson(result: BenchResult): BenchReport {
  const { options, cells: _, comparisons: __, runs, ...rest } = result;
  const summed = runs.map(({ served, ...run }) => {
    const waits = { ttftMs: percentiles(served.ttftMs), itlMs: percentiles(served.itlMs) };
    return { ...run, served: { ...served, ...waits, ranks: rankReports([{ ...run, served }]) } };
  });
  return { ...rest, seed: options.seed, options, cells: reportCells(result), runs: summed };
}

type Headlined = Readonly<{
  environment: Environment;
  options: Pick<BenchOptions, 'session' | 'seed' | 'ending' | 'dataParallel'> &
    Readonly<{ workload: string | Readonly<{ name: string }> }>;
}>;

export function headline({ environment: e, options }: Headlined): string {
  const { session } = options;
  const { model } = session;
  const workload = typeof options.workload === 'string' ? options.workload : options.workload.name;
  const isClock = session.device === 'clock';
  const worth = isClock ? ', not a GPU' : e.isSoftwareDevice ? ': software, says nothing about a GPU' : '';
  const ballast = isClock ? '' : ` · ballast ${session.ballastMs} ms`;
  return [
    `${model.name} (${model.numLayers} layers, ${model.numExperts} experts, top-${model.topK}) · ` +
      `${session.router?.kind ?? 'modular'} router · ${workload} · seed ${options.seed}`,
    `device ${e.device}${worth}${ballast}${ranksText(session, options.dataParallel)} · ` +
      `queue depth ${session.queueDepth} · ${endingText(options.ending)}`,
    `${e.cpu} × ${e.numCpus} · Node ${e.node} · webgpu ${e.packages['webgpu']} · commit ${e.commit ?? 'unknown'}`,
  ]
    .map((line) => wrapped(line, '  '))
    .join('\n');
}

function ranksText(
  { numRanks, collectiveTimeoutMs, gpus = [], pipelineSplit }: SessionConfig,
  { size, dispatch }: DataParallel,
): string {
  const on = gpus.length === 0 ? '' : ` on ${new Set(gpus).size} GPUs`;
  if (pipelineSplit !== undefined) {
    const stages = `${pipelineSplit.length} stages of ${pipelineSplit.join(' + ')} layers`;
    return ` · ${stages} on ${numRanks} ranks${on}`;
  }
  if (collectiveTimeoutMs === undefined) return numRanks === 1 ? '' : ` · ${numRanks} ranks${on}`;
  const engines = size === 1 ? '' : ` of ${size} engines, ${dispatch} dispatch`;
  return ` · ${size * numRanks} ranks in lockstep${engines}${on}`;
}

function endingText(ending: Ending): string {
  if (ending.kind === 'repeats') return `${ending.repeats} ${ending.repeats === 1 ? 'repeat' : 'repeats'}`;
  return `pairs until ± ${(100 * ending.halfWidth).toFixed(0)} %, at most ${Math.round(ending.budgetMs / 100) / 10} s`;
}

function footer(result: BenchResult, reports: readonly CellReport[]): string {
  const lines: string[] = [];
  const total = (of: (report: CellReport) => number) => reports.reduce((sum, report) => sum + of(report), 0);
  const requests = (['submitted', 'finished', 'aborted', 'refused', 'lost'] as const).map(
    (what) => `${total((report) => report.requests[what])} ${what}`,
  );
  lines.push(
    `requests: ${requests.join(', ')} · preemptions: ` +
      `${result.runs.reduce((sum, run) => sum + run.served.engineStats.numPreemptions, 0)}`,
    `rows: ${total((r) => r.rows.delivered)} delivered, ${total((r) => r.rows.mismatched)} mismatched` +
      pairsText(reports),
  );
  reports.forEach(({ drafts }, i) => {
    if (drafts.tokens === 0) return;
    const share = ((100 * drafts.accepted) / drafts.tokens).toFixed(1);
    lines.push(
      `${cellName(result.cells[i]!)}: ${drafts.tokens} draft tokens, ${drafts.accepted} accepted (${share} %)`,
    );
  });
  const policy = result.options.session.prefixRows ?? DEFAULT_PREFIX_ROWS;
  reports.forEach((report, i) => {
    const { cached } = report.rowBytesPeak;
    if (report.design !== 'deltas' || cached === null) return;
    lines.push(
      `${cellName(result.cells[i]!)}, prefix rows ${policy}: ${hitsText(report)}, ` +
        `${bytes(cached)} of rows kept with cached blocks`,
    );
  });
  reports.forEach((report, i) => {
    const { offload } = report;
    if (offload === null) return;
    lines.push(
      `${cellName(result.cells[i]!)}, host memory: ${bytes(offload.bytesToHost)} to it and ` +
        `${bytes(offload.bytesFromHost)} back, ${Math.round(offload.loadedTokens)} tokens loaded; hit rate ` +
        `${(100 * hitShare(report)).toFixed(1)} % with the prefix cache`,
    );
  });
  return [...lines, ...notes(result)].map((line) => wrapped(line, '  ')).join('\n');
}

/** What a reader has to know of a result besides its figures. */
export function notes(
  result: Pick<BenchResult, 'shaderCheck' | 'warnings' | 'problems'> &
    Readonly<{ runs: readonly Readonly<{ refusal: string | null; served: Pick<BenchRun['served'], 'deadlines'> }>[] }>,
): string[] {
  const lines = deadlineLines(sumOfDeadlines(result.runs.map(({ served }) => served.deadlines)));
  if (result.shaderCheck !== null) {
    const { device, numDesigns, rowsVerified } = result.shaderCheck;
    lines.push(`shaders, untimed, on ${device}: ${numDesigns} designs, ${rowsVerified} rows verified`);
  }
  const refusal = result.runs.find((run) => run.refusal !== null)?.refusal;
  if (refusal) lines.push(`refused, for example: ${refusal}`);
  for (const warning of result.warnings) lines.push(`WARNING ${warning}`);
  for (const problem of new Set(result.problems)) lines.push(`PROBLEM ${problem}`);
  return lines;
}

/** How many pairs the cells have; nothing for `off` alone. */
function pairsText(reports: readonly CellReport[]): string {
  const pairs = reports.filter(({ design }) => design !== 'off').map(({ ratioToOff }) => ratioToOff.pairs);
  if (pairs.length === 0) return '';
  const [fewest, most] = [Math.min(...pairs), Math.max(...pairs)];
  return ` · pairs of each cell: ${fewest === most ? most : `${fewest} to ${most}`}`;
}

/** Of the tokens of a run: those that the prefix cache spared, and those that it held without their rows. */
function hitsText({ prefixQueryTokens, prefixHitTokens, prefixRecomputedTokens }: CellReport): string {
  const share = (tokens: number) => `${Math.round(tokens)} (${((100 * tokens) / prefixQueryTokens).toFixed(1)} %)`;
  return (
    `of ${Math.round(prefixQueryTokens)} tokens per run ${share(prefixHitTokens)} from the prefix cache, ` +
    `${share(prefixRecomputedTokens)} cached but computed again for their rows`
  );
}

function bytes(count: number): string {
  if (count < 1024) return `${Math.round(count)} B`;
  if (count < 2 ** 20) return `${(count / 1024).toFixed(1)} KiB`;
  return `${(count / 2 ** 20).toFixed(1)} MiB`;
}
