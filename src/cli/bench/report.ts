/** From the runs of a bench to its table and its JSON. */

import Table from 'cli-table3';
import { DEFAULT_PREFIX_ROWS } from '../../capture/deltas/prefix-rows.ts';
import type { BenchResult } from './bench.ts';
import { rateOf, type BenchRun } from './bench-run.ts';
import type { Ending } from './pair-schedule.ts';
import type { Cell } from './plan.ts';
import { cellName } from './plan.ts';
import type { Comparison } from './statistics/paired-comparison.ts';
import { median, quantile } from './statistics/quantile.ts';

/** One cell over its repeats. Times and rates are medians over the repeats; counts are sums. */
export type CellReport = Readonly<{
  design: string;
  optInShare: number;
  /** Output tokens per second. */
  tokensPerSecond: number;
  /** Of `tokensPerSecond` to that of `off` in the same group of runs. */
  ratioToOff: RatioReport;
  stepMs: Readonly<{ p50: number; p99: number }>;
  schedulerUsPerRequestStep: number;
  /** The longest stall of the event loop, and the longest step of the engine, of each repeat. */
  longestStallMs: Longest;
  longestEngineStepMs: Longest;
  /** Per repeat. */
  bytesDeviceToHost: number;
  bytesDeviceToHostForCapture: number;
  bytesAcrossThreads: number;
  preemptions: number;
  /**
   * Per repeat, in tokens: those of admitted and resumed requests, those of them that the prefix cache spared, and
   * those that it held and that were computed again because no cached block has their rows.
   */
  prefixQueryTokens: number;
  prefixHitTokens: number;
  prefixRecomputedTokens: number;
  /**
   * Rows kept with cached KV blocks after the drain, the most of all repeats; `null` for a design that keeps none
   * there.
   */
  cachedRowBytesMax: number | null;
  /** Draft tokens verified, and how many of them were right. */
  drafts: Readonly<{ tokens: number; accepted: number }>;
  rows: Readonly<{ delivered: number; verified: number; mismatched: number; missing: number }>;
  requests: BenchRun['accounting'];
}>;

export type RatioReport = Readonly<{
  /** Of all pairs. */
  median: number;
  min: number;
  max: number;
  /** The 95 % interval of the median; `null` where there is none, like the rest for `off` itself. */
  low: number | null;
  high: number | null;
  halfWidth: number | null;
  verdict: Comparison['verdict'] | null;
  pairs: number;
  endedBy: Comparison['endedBy'] | null;
}>;

/** Of the longest of each repeat: what is usual, and the worst that the machine added to it. */
type Longest = Readonly<{ median: number; max: number }>;

export function reportCells(result: BenchResult): readonly CellReport[] {
  const offRate = new Map(runsOf(result, { design: 'off', optInShare: 0 }).map((run) => [run.group, rateOf(run)]));
  return result.cells.map((cell, i) => {
    const runs = runsOf(result, cell);
    const rates = runs.map(rateOf);
    const ratios = runs.map((run) => rateOf(run) / offRate.get(run.group)!);
    const steps = runs.flatMap((run) => run.served.stepMs);
    const sum = (of: (run: BenchRun) => number) => runs.reduce((total, run) => total + of(run), 0);
    const mean = (of: (run: BenchRun) => number) => sum(of) / runs.length;
    const most = (of: (run: BenchRun) => number) => Math.max(...runs.map(of));
    const longest = (of: (run: BenchRun) => number) => ({ median: median(runs.map(of)), max: most(of) });
    return {
      design: cell.design,
      optInShare: cell.optInShare,
      tokensPerSecond: median(rates),
      ratioToOff: ratioReport(ratios, result.comparisons[i]!),
      stepMs: { p50: quantile(steps, 0.5), p99: quantile(steps, 0.99) },
      schedulerUsPerRequestStep: median(runs.map((run) => (run.served.schedulerMs * 1000) / run.served.requestSteps)),
      longestStallMs: longest((run) => run.served.eventLoopStallMs),
      longestEngineStepMs: longest((run) => run.served.longestSchedulerMs),
      bytesDeviceToHost: mean((run) => run.served.transfers.deviceToHost),
      bytesDeviceToHostForCapture: mean((run) => run.served.transfers.captureDeviceToHost),
      bytesAcrossThreads: mean((run) => run.served.transfers.acrossThreads),
      preemptions: mean((run) => run.served.engineStats.numPreemptions),
      prefixQueryTokens: mean((run) => run.served.engineStats.numPrefixQueryTokens),
      prefixHitTokens: mean((run) => run.served.engineStats.numPrefixHitTokens),
      prefixRecomputedTokens: mean((run) => run.served.engineStats.numPrefixRefusedTokens),
      drafts: {
        tokens: sum((run) => run.served.engineStats.numDraftTokens),
        accepted: sum((run) => run.served.engineStats.numAcceptedTokens),
      },
      cachedRowBytesMax: runs.some((run) => run.cachedRowBytes !== null)
        ? most((run) => run.cachedRowBytes ?? 0)
        : null,
      rows: {
        delivered: sum((run) => run.verification.rowsDelivered),
        verified: sum((run) => run.verification.rowsVerified),
        mismatched: sum((run) => run.verification.rowsMismatched),
        missing: sum((run) => run.verification.rowsMissing),
      },
      requests: {
        submitted: sum((run) => run.accounting.submitted),
        finished: sum((run) => run.accounting.finished),
        aborted: sum((run) => run.accounting.aborted),
        refused: sum((run) => run.accounting.refused),
        lost: sum((run) => run.accounting.lost),
      },
    };
  });
}

function ratioReport(ratios: readonly number[], comparison: Comparison | null): RatioReport {
  const { low = null, high = null, halfWidth = null } = comparison?.interval ?? {};
  return {
    median: comparison?.ratio ?? 1,
    min: Math.min(...ratios),
    max: Math.max(...ratios),
    low,
    high,
    halfWidth,
    verdict: comparison?.verdict ?? null,
    pairs: comparison?.pairs ?? 0,
    endedBy: comparison?.endedBy ?? null,
  };
}

export function renderTable(result: BenchResult): string {
  const reports = reportCells(result);
  const table = new Table({
    head: [
      'design',
      'tokens/s',
      'vs off',
      'pairs',
      'step p50 ms',
      'p99 ms',
      'sched µs',
      'engine ms (max)',
      'stall ms (max)',
      'capture D→H',
      'messages',
      'rows',
      'verified',
      'wrong',
      'missing',
    ],
    style: { head: [], border: [], compact: true },
    colAligns: ['left', ...Array.from({ length: 14 }, () => 'right' as const)],
  });
  reports.forEach((report, i) => {
    const { rows } = report;
    table.push([
      cellName(result.cells[i]!),
      report.tokensPerSecond.toFixed(0),
      // In an open loop the arrivals set the pace of every design that keeps up: a ratio of rates would say nothing.
      result.options.mode.kind === 'open' ? '–' : ratioText(report.ratioToOff),
      pairsText(report),
      report.stepMs.p50.toFixed(1),
      report.stepMs.p99.toFixed(1),
      report.schedulerUsPerRequestStep.toFixed(2),
      longestText(report.longestEngineStepMs, result),
      longestText(report.longestStallMs, result),
      bytes(report.bytesDeviceToHostForCapture),
      bytes(report.bytesAcrossThreads),
      rows.delivered,
      rows.verified,
      rows.mismatched,
      rows.missing,
    ]);
  });
  return [headline(result), table.toString(), legend, ...footer(result, reports)].join('\n');
}

export function toJson(result: BenchResult): unknown {
  const { options, cells: _, comparisons: __, runs, ...rest } = result;
  return { ...rest, seed: options.seed, options, cells: reportCells(result), runs };
}

const ROUNDING_ERROR = 1e-9;

const legend = [
  'tokens/s: output tokens, median of the runs',
  'vs off: median ratio to the off run of the same seconds ± half its 95 % interval, whatever ended the bench',
  'slower, faster: the interval lies below 0.98, above 1.02 · pairs: and what ended them, if not a narrow interval',
  'sched: engine time per request and step · engine: its longest step',
  'stall: the longest that the main thread’s event loop stood still; both of a run: median over the runs, and longest',
  'capture D→H: bytes read back for capture, per run · messages: bytes between threads, without shared memory',
  'missing: rows that a design, or its prefix-rows policy, gives up',
].join('\n');

function headline({ environment: e, options }: BenchResult): string {
  const { session } = options;
  const { model } = session;
  const isClock = session.device === 'clock';
  const worth = isClock ? ', not a GPU' : e.isSoftwareDevice ? ': software, says nothing about a GPU' : '';
  const ballast = isClock ? '' : ` · ballast ${session.ballastMs} ms`;
  return [
    `${model.name} (${model.numLayers} layers, ${model.numExperts} experts, top-${model.topK}) · ` +
      `${session.router?.kind ?? 'modular'} router · ${options.workload} · seed ${options.seed}`,
    `device ${e.device}${worth}${ballast} · queue depth ${session.queueDepth} · ${endingText(options.ending)}`,
    `${e.cpu} × ${e.numCpus} · Node ${e.node} · webgpu ${e.packages['webgpu']} · commit ${e.commit ?? 'unknown'}`,
  ].join('\n');
}

function endingText(ending: Ending): string {
  if (ending.kind === 'repeats') return `${ending.repeats} ${ending.repeats === 1 ? 'repeat' : 'repeats'}`;
  return `pairs until ± ${(100 * ending.halfWidth).toFixed(0)} %, at most ${ending.budgetMs / 1000} s`;
}

function footer(result: BenchResult, reports: readonly CellReport[]): string[] {
  const lines: string[] = [];
  const total = (of: (report: CellReport) => number) => reports.reduce((sum, report) => sum + of(report), 0);
  const requests = (['submitted', 'finished', 'aborted', 'refused', 'lost'] as const).map(
    (what) => `${total((report) => report.requests[what])} ${what}`,
  );
  lines.push(
    `requests: ${requests.join(', ')} · preemptions: ` +
      `${result.runs.reduce((sum, run) => sum + run.served.engineStats.numPreemptions, 0)}` +
      ` · rows: ${total((r) => r.rows.delivered)} delivered, ${total((r) => r.rows.mismatched)} mismatched`,
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
    const { cachedRowBytesMax } = report;
    if (report.design !== 'deltas' || cachedRowBytesMax === null) return;
    lines.push(
      `${cellName(result.cells[i]!)}, prefix rows ${policy}: ${hitsText(report)}, ` +
        `${bytes(cachedRowBytesMax)} of rows kept with cached blocks`,
    );
  });
  if (result.deadlines !== null) {
    const { count, overrun, longestMs } = result.deadlines;
    const missed = overrun === 0 ? 'none overrun' : `${overrun} overrun, by ${longestMs.toFixed(1)} ms at most`;
    lines.push(`clock: ${count} deadlines, ${missed}`);
  }
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

/** Of the tokens of a run: those that the prefix cache spared, and those that it held without their rows. */
function hitsText({ prefixQueryTokens, prefixHitTokens, prefixRecomputedTokens }: CellReport): string {
  const share = (tokens: number) => `${Math.round(tokens)} (${((100 * tokens) / prefixQueryTokens).toFixed(1)} %)`;
  return (
    `of ${Math.round(prefixQueryTokens)} tokens per run ${share(prefixHitTokens)} from the prefix cache, ` +
    `${share(prefixRecomputedTokens)} cached but computed again for their rows`
  );
}

/** As `0.93 ± 0.01 slower`; the margin is rounded up. Without an interval there is none. */
export function ratioText({ median: ratio, halfWidth, verdict }: RatioReport): string {
  if (verdict === null) return ratio.toFixed(0);
  if (halfWidth === null) return `${ratio.toFixed(2)} ${verdict}`;
  const digits = halfWidth <= 0.009 ? 3 : 2;
  const margin = Math.ceil(halfWidth * 10 ** digits - ROUNDING_ERROR) / 10 ** digits;
  return `${ratio.toFixed(digits)} ± ${margin.toFixed(digits)} ${verdict}`;
}

/** How many, and what ended it; a cell that its interval ended needs no word. */
function pairsText({ ratioToOff: { pairs, endedBy } }: CellReport): string {
  if (endedBy === null) return '–';
  return endedBy === 'half-width' ? `${pairs}` : `${pairs} (${endedBy})`;
}

function longestText({ median: usual, max }: Longest, { options }: BenchResult): string {
  return options.repeats === 1 ? max.toFixed(1) : `${usual.toFixed(1)} (${max.toFixed(1)})`;
}

function runsOf(result: BenchResult, cell: Cell): BenchRun[] {
  return result.runs.filter((run) => run.cell.design === cell.design && run.cell.optInShare === cell.optInShare);
}

function bytes(count: number): string {
  if (count < 1024) return `${Math.round(count)} B`;
  if (count < 2 ** 20) return `${(count / 1024).toFixed(1)} KiB`;
  return `${(count / 2 ** 20).toFixed(1)} MiB`;
}
