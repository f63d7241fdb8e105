/** What a bench reports of each cell: its runs put together. */

import type { OffloadStats } from '../../../host/kv-tier/kv-offload.ts';
import type { BenchResult } from '../bench.ts';
import { rateOf, type BenchRun } from '../bench-run.ts';
import type { RowBytesPeak } from '../measure/run-meter.ts';
import type { Cell } from '../plan.ts';
import type { Comparison } from '../statistics/paired-comparison.ts';
import { rankReports, type RankReport } from './rank-report.ts';
import { median, quantile } from '../statistics/quantile.ts';
import type { ThreadUsage } from '../../../worker/thread/thread-meter.ts';

/** One cell over its repeats. Times and rates are medians over the repeats; counts are sums. */
export type CellReport = Readonly<{
  design: string;
  optInShare: number;
  /** Output tokens per second. */
  tokensPerSecond: number;
  /** Of `tokensPerSecond` to that of `off` in the same group of runs. */
  ratioToOff: RatioReport;
  /**
   * As a client of the engine sees it: from a request's arrival to its first output with tokens, and from an output
   * with tokens to the next. Of all requests of all repeats; NaN where no token came.
   */
  ttftMs: Percentiles;
  itlMs: Percentiles;
  /** Processor time of a thread per output token, µs; `workers` are summed. `null`: see `ThreadUsage`. */
  cpuUsPerToken: Readonly<{ main: number | null; workers: number | null }>;
  /** Per repeat, and the longest of all; `null`: workers were lost on the way. */
  gcPauses: Readonly<{ main: GcPauses; workers: GcPauses | null }>;
  stepMs: Percentiles;
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
  /** Per repeat; `null`: no KV is kept outside the devices. */
  offload: OffloadReport | null;
  /** The most of all repeats; `cached` and `requests`: of the first one. */
  rowBytesPeak: RowBytesPeak;
  /** `null`: not in lockstep. */
  ranks: readonly RankReport[] | null;
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

/** KV that the pool gave up. Bytes are those of keys and rows. */
export type OffloadReport = Readonly<{
  /** Tokens whose KV came back. */
  loadedTokens: number;
  bytesToHost: number;
  bytesFromHost: number;
  blocksSaved: number;
  blocksSkipped: number;
  failedLoads: number;
}>;

export type Percentiles = Readonly<{ p50: number; p99: number }>;

export type GcPauses = Readonly<{ count: number; longestMs: number }>;

/** Of the longest of each repeat: what is usual, and the worst that the machine added to it. */
type Longest = Readonly<{ median: number; max: number }>;

export function reportCells(result: BenchResult): readonly CellReport[] {
  const offRate = new Map(runsOf(result, { design: 'off', optInShare: 0 }).map((run) => [run.group, rateOf(run)]));
  return result.cells.map((cell, i) => {
    const runs = runsOf(result, cell);
    const rates = runs.map(rateOf);
    const ratios = runs.map((run) => rateOf(run) / offRate.get(run.group)!);
    const sum = (of: (run: BenchRun) => number) => runs.reduce((total, run) => total + of(run), 0);
    const mean = (of: (run: BenchRun) => number) => sum(of) / runs.length;
    const most = (of: (run: BenchRun) => number) => Math.max(...runs.map(of));
    const longest = (of: (run: BenchRun) => number) => ({ median: median(runs.map(of)), max: most(of) });
    return {
      design: cell.design,
      optInShare: cell.optInShare,
      tokensPerSecond: median(rates),
      ratioToOff: ratioReport(ratios, result.comparisons[i]!),
      ttftMs: percentiles(runs.flatMap((run) => run.served.ttftMs)),
      itlMs: percentiles(runs.flatMap((run) => run.served.itlMs)),
      cpuUsPerToken: {
        main: cpuUsPerToken(runs, (run) => run.served.mainThread),
        workers: cpuUsPerToken(runs, (run) => run.served.workerThreads),
      },
      gcPauses: {
        main: gcPauses(runs.map((run) => run.served.mainThread))!,
        workers: gcPauses(runs.map((run) => run.served.workerThreads)),
      },
      stepMs: percentiles(runs.flatMap((run) => run.served.stepMs)),
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
      offload: offloadReport(runs),
      drafts: {
        tokens: sum((run) => run.served.engineStats.numDraftTokens),
        accepted: sum((run) => run.served.engineStats.numAcceptedTokens),
      },
      rowBytesPeak: {
        device: mostBytes(runs, 'device'),
        inFlight: mostBytes(runs, 'inFlight'),
        cached: mostBytes(runs, 'cached'),
        requests: mostBytes(runs, 'requests'),
      },
      ranks: rankReports(runs),
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

function offloadReport(runs: readonly BenchRun[]): OffloadReport | null {
  const each = runs.map(({ served }) => served.offload).filter((offload) => offload !== null);
  if (each.length === 0) return null;
  const mean = (of: (offload: OffloadStats) => number): number =>
    each.reduce((sum, offload) => sum + of(offload), 0) / runs.length;
  return {
    loadedTokens: runs.reduce((sum, run) => sum + run.served.engineStats.numExternalTokens, 0) / runs.length,
    bytesToHost: mean((offload) => offload.bytesToHost),
    bytesFromHost: mean((offload) => offload.bytesFromHost),
    blocksSaved: mean((offload) => offload.blocksSaved),
    blocksSkipped: mean((offload) => offload.blocksSkipped),
    failedLoads: mean((offload) => offload.failedLoads),
  };
}

/** The share of the tokens of admitted requests that need not be computed; NaN without any. */
export function hitShare({ prefixQueryTokens, prefixHitTokens, offload }: CellReport): number {
  return (prefixHitTokens + (offload?.loadedTokens ?? 0)) / prefixQueryTokens;
}

export function percentiles(values: readonly number[]): Percentiles {
  return { p50: quantile(values, 0.5), p99: quantile(values, 0.99) };
}

/** The median over the runs; `null` unless it is known of each. */
function cpuUsPerToken(runs: readonly BenchRun[], of: (run: BenchRun) => ThreadUsage | null): number | null {
  const each = runs.map((run) => {
    const cpuUs = of(run)?.cpuUs ?? null;
    return cpuUs === null ? null : cpuUs / run.outputTokens;
  });
  const known = each.filter((us) => us !== null);
  return known.length === each.length ? median(known) : null;
}

function gcPauses(usages: readonly (ThreadUsage | null)[]): GcPauses | null {
  const pauses = usages.filter((usage) => usage !== null).map((usage) => usage.gcPauses);
  if (pauses.length < usages.length) return null;
  const count = pauses.reduce((sum, each) => sum + each.count, 0) / pauses.length;
  return { count, longestMs: Math.max(...pauses.map(({ longestMs }) => longestMs)) };
}

/** `null`: of no run. */
function mostBytes(runs: readonly BenchRun[], of: keyof RowBytesPeak): number | null {
  const known = runs.map((run) => run.served.rowBytesPeak[of]).filter((bytes) => bytes !== null);
  return known.length === 0 ? null : Math.max(...known);
}

export function ratioReport(ratios: readonly number[], comparison: Comparison | null): RatioReport {
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

function runsOf(result: BenchResult, cell: Cell): BenchRun[] {
  return result.runs.filter((run) => run.cell.design === cell.design && run.cell.optInShare === cell.optInShare);
}
