/**
 * Every metric of a bench, written once: what it is called and means, for the legend below the table and for `--help`;
 * its column of the table, if it has one; its columns of the CSV.
 */

import { hitShare, type CellReport, type RatioReport } from './cell-report.ts';
import { straggler, type RankReport } from './rank-report.ts';

type CsvValue = string | number | null;

export type Metric = Readonly<{
  name: string;
  /** With its unit. */
  meaning: string;
  /** By the names of their columns, which end with the unit. */
  csv: Readonly<Record<string, (cell: CellReport) => CsvValue>>;
  /** In the table of the terminal. */
  column?: Readonly<{ head: string; text: (cell: CellReport, table: TableContext) => string }>;
}>;

/** `comparesRates`: not in an open loop, where the arrivals set the pace of every design that keeps up. */
export type TableContext = Readonly<{ comparesRates: boolean }>;

const UNKNOWN = '–';

export const METRICS: readonly Metric[] = [
  {
    name: 'vs off',
    meaning:
      'ratio of output tokens/s to a run of off of the same seconds: median of the pairs ± half its 95 % interval; ' +
      'slower, faster: the interval lies below 0.98, above 1.02; *: ended before the interval was narrow',
    csv: {
      tokens_per_s: (cell) => cell.tokensPerSecond,
      ratio_to_off: (cell) => cell.ratioToOff.median,
      ratio_low: (cell) => cell.ratioToOff.low,
      ratio_high: (cell) => cell.ratioToOff.high,
      ratio_half_width: (cell) => cell.ratioToOff.halfWidth,
      verdict: (cell) => cell.ratioToOff.verdict,
      pairs: (cell) => cell.ratioToOff.pairs,
      ended_by: (cell) => cell.ratioToOff.endedBy,
    },
    column: {
      head: 'vs off',
      text: (cell, { comparesRates }) =>
        cell.design === 'off' || !comparesRates
          ? `${cell.tokensPerSecond.toFixed(0)} tokens/s`
          : ratioText(cell.ratioToOff),
    },
  },
  {
    name: 'TTFT',
    meaning: 'time to first token, ms: from arrival at the engine to the first output with tokens',
    csv: { ttft_p50_ms: (cell) => cell.ttftMs.p50, ttft_p99_ms: (cell) => cell.ttftMs.p99 },
    column: { head: 'TTFT ms\np50/p99', text: ({ ttftMs }) => `${ms(ttftMs.p50)}/${ms(ttftMs.p99)}` },
  },
  {
    name: 'ITL',
    meaning: 'time between tokens, ms: from one output of a request with tokens to the next',
    csv: { itl_p50_ms: (cell) => cell.itlMs.p50, itl_p99_ms: (cell) => cell.itlMs.p99 },
    column: { head: 'ITL ms\np99', text: ({ itlMs }) => ms(itlMs.p99) },
  },
  {
    name: 'CPU',
    meaning: 'processor time per output token, µs: main thread with the client + worker threads; median',
    csv: {
      cpu_main_us_per_token: (cell) => cell.cpuUsPerToken.main,
      cpu_workers_us_per_token: (cell) => cell.cpuUsPerToken.workers,
    },
    column: {
      head: 'CPU µs\n/token',
      text: ({ cpuUsPerToken: { main, workers } }) => `${us(main)}+${us(workers)}`,
    },
  },
  {
    name: 'stall',
    meaning: 'the longest that the main thread’s event loop stood still in a run, ms; median of the runs',
    csv: {
      longest_stall_median_ms: (cell) => cell.longestStallMs.median,
      longest_stall_max_ms: (cell) => cell.longestStallMs.max,
    },
    column: { head: 'stall\nms', text: ({ longestStallMs }) => ms(longestStallMs.median) },
  },
  {
    name: 'D→H',
    meaning: 'read back from the devices for capture, MiB per run',
    csv: { capture_device_to_host_bytes: (cell) => cell.bytesDeviceToHostForCapture },
    column: { head: 'D→H\nMiB', text: (cell) => mebibytes(cell.bytesDeviceToHostForCapture) },
  },
  {
    name: 'wrong/missing',
    meaning: 'rows that are not the oracle’s; rows that the design or its policy gives up',
    csv: {
      rows_delivered: (cell) => cell.rows.delivered,
      rows_verified: (cell) => cell.rows.verified,
      rows_wrong: (cell) => cell.rows.mismatched,
      rows_missing: (cell) => cell.rows.missing,
    },
    column: { head: 'wrong/\nmissing', text: ({ rows }) => `${count(rows.mismatched)}/${count(rows.missing)}` },
  },
  {
    name: 'step',
    meaning: 'until the output of a step arrived, from its dispatch or, if later, the output before it, ms',
    csv: { step_p50_ms: (cell) => cell.stepMs.p50, step_p99_ms: (cell) => cell.stepMs.p99 },
  },
  {
    name: 'engine',
    meaning:
      'time in the engine core, which plans steps and takes their outputs in: µs per request and step, median ' +
      'of the runs; the longest step of a run, ms',
    csv: {
      engine_us_per_request_step: (cell) => cell.schedulerUsPerRequestStep,
      longest_engine_step_median_ms: (cell) => cell.longestEngineStepMs.median,
      longest_engine_step_max_ms: (cell) => cell.longestEngineStepMs.max,
    },
  },
  {
    name: 'ranks',
    meaning:
      'in lockstep: what the ranks wait for each other in a step, ms; the rank that is most often the last, and its ' +
      'share of steps',
    csv: {
      rank_wait_p50_ms: ({ ranks }) => mostOf(ranks, ({ waitMs }) => waitMs.p50),
      rank_wait_p99_ms: ({ ranks }) => mostOf(ranks, ({ waitMs }) => waitMs.p99),
      straggler_rank: ({ ranks }) => straggler(ranks)?.rank ?? null,
      straggler_share: ({ ranks }) => straggler(ranks)?.lastShare ?? null,
    },
  },
  {
    name: 'GC',
    meaning: 'pauses for garbage collection, of the main thread and of all workers: how many in a run, and the longest',
    csv: {
      gc_main_pauses: (cell) => cell.gcPauses.main.count,
      gc_main_longest_ms: (cell) => cell.gcPauses.main.longestMs,
      gc_workers_pauses: (cell) => cell.gcPauses.workers?.count ?? null,
      gc_workers_longest_ms: (cell) => cell.gcPauses.workers?.longestMs ?? null,
    },
  },
  {
    name: 'row memory',
    meaning:
      'the most bytes of rows at once: device buffers that capture needs; in flight from workers to the engine and ' +
      'back; with cached KV blocks; with requests until they end (these two: of the first pair, to a sixteenth)',
    csv: {
      rows_device_peak_bytes: (cell) => cell.rowBytesPeak.device,
      rows_in_flight_peak_bytes: (cell) => cell.rowBytesPeak.inFlight,
      rows_cached_peak_bytes: (cell) => cell.rowBytesPeak.cached,
      rows_requests_peak_bytes: (cell) => cell.rowBytesPeak.requests,
    },
  },
  {
    name: 'bytes',
    meaning: 'per run: all that was read back from the devices; messages between threads, without shared memory',
    csv: {
      device_to_host_bytes: (cell) => cell.bytesDeviceToHost,
      messages_bytes: (cell) => cell.bytesAcrossThreads,
    },
  },
  {
    name: 'scheduling',
    meaning:
      'per run: preemptions; tokens of admitted requests, those of them that the prefix cache spared, and those that ' +
      'it held without their rows, computed again',
    csv: {
      preemptions: (cell) => cell.preemptions,
      prefix_query_tokens: (cell) => cell.prefixQueryTokens,
      prefix_hit_tokens: (cell) => cell.prefixHitTokens,
      prefix_recomputed_tokens: (cell) => cell.prefixRecomputedTokens,
    },
  },
  {
    name: 'offloading',
    meaning:
      'per run, with --kv-offload-blocks: bytes of keys and rows to host memory and back; tokens whose KV came back; ' +
      'evicted blocks that were not kept, since too many copies were under way; and the share of tokens of admitted ' +
      'requests that the prefix cache and host memory spared',
    csv: {
      kv_to_host_bytes: ({ offload }) => offload?.bytesToHost ?? null,
      kv_from_host_bytes: ({ offload }) => offload?.bytesFromHost ?? null,
      kv_loaded_tokens: ({ offload }) => offload?.loadedTokens ?? null,
      kv_skipped_blocks: ({ offload }) => offload?.blocksSkipped ?? null,
      prefix_hit_share: hitShare,
    },
  },
  {
    name: 'requests',
    meaning: 'of all runs: requests by their end, draft tokens verified and accepted',
    csv: {
      requests_submitted: (cell) => cell.requests.submitted,
      requests_finished: (cell) => cell.requests.finished,
      requests_aborted: (cell) => cell.requests.aborted,
      requests_refused: (cell) => cell.requests.refused,
      requests_lost: (cell) => cell.requests.lost,
      draft_tokens: (cell) => cell.drafts.tokens,
      draft_tokens_accepted: (cell) => cell.drafts.accepted,
    },
  },
];

/** Of the rank that waits longest; `null`: not in lockstep. */
function mostOf(ranks: CellReport['ranks'], of: (rank: RankReport) => number): number | null {
  return ranks === null ? null : Math.max(...ranks.map(of));
}

const ROUNDING_ERROR = 1e-9;

/** As `0.93 ± 0.01 slower`; the margin is rounded up. Without an interval there is none. */
export function ratioText({ median: ratio, halfWidth, verdict, endedBy }: RatioReport): string {
  if (verdict === null) return ratio.toFixed(0);
  const isCutShort = endedBy === 'time budget' || endedBy === 'most pairs';
  const words = `${verdict}${isCutShort ? '*' : ''}`;
  if (halfWidth === null) return `${ratio.toFixed(2)} ${words}`;
  const digits = halfWidth <= 0.009 ? 3 : 2;
  const margin = Math.ceil(halfWidth * 10 ** digits - ROUNDING_ERROR) / 10 ** digits;
  return `${ratio.toFixed(digits)} ± ${margin.toFixed(digits)} ${words}`;
}

/** In at most four characters, up to an hour or so. */
function ms(value: number): string {
  if (!Number.isFinite(value)) return UNKNOWN;
  if (value < 99.95) return value.toFixed(1);
  return value < 9999.5 ? value.toFixed(0) : `${(value / 1000).toFixed(0)}s`;
}

function us(value: number | null): string {
  return value === null || !Number.isFinite(value) ? UNKNOWN : value.toFixed(0);
}

/** In at most five characters, up to 99,999 MiB. */
function mebibytes(bytes: number): string {
  const value = bytes / 2 ** 20;
  if (value === 0) return '0';
  if (value < 0.0995) return Math.max(value, 0.001).toFixed(3);
  return value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0);
}

/** In at most five characters, up to 9,999 million. */
function count(value: number): string {
  if (value < 1e5) return `${value}`;
  return value < 9.9995e6 ? `${(value / 1e3).toFixed(0)}k` : `${(value / 1e6).toFixed(0)}M`;
}
