/** What makes the bench's figures mean what they say: waits, memory, the terminal's width, CSV, sweeps. */

import type { SourceMutation } from './source-mutation.ts';

const room = 'src/cli/bench';
const workers = 'src/worker';
const tokenTest = { test: 'test/cli/token-times.unit.test.ts' };
const metricsTest = { test: 'test/cli/metrics.unit.test.ts' };
const sweepTest = { test: 'test/cli/sweep.unit.test.ts' };
const scheduleTest = { test: 'test/cli/pair-schedule.unit.test.ts' };
const usageTest = { test: 'test/worker/rank-usage.unit.test.ts' };
const heldTest = { test: 'test/worker/held-rows-peak.unit.test.ts' };

export const metricsMutations: readonly SourceMutation[] = [
  {
    name: 'bench-all-waits-are-for-the-first-token',
    defect: 'every wait for a token is called one for the first token',
    file: `${room}/measure/token-times.ts`,
    find: '    this.#hasTokens[place] = 1;\n',
    replace: '',
    killedBy: tokenTest,
  },
  {
    name: 'bench-time-between-tokens-from-arrival',
    defect: 'every token is waited for from the arrival of its request',
    file: `${room}/measure/token-times.ts`,
    find: '    this.#latestAt[place] = at;\n    this.#hasTokens',
    replace: '    this.#hasTokens',
    killedBy: tokenTest,
  },
  {
    name: 'bench-csv-quote-not-doubled',
    defect: 'a quote in a name ends its field',
    file: `${room}/report/csv.ts`,
    find: `text.replaceAll('"', '""')`,
    replace: 'text',
    killedBy: metricsTest,
  },
  {
    name: 'bench-table-wider-than-the-terminal',
    defect: 'columns stay two spaces apart, however wide they are',
    file: `${room}/report/terminal.ts`,
    find: 'apart.find((text) => widest(text) <= TERMINAL_COLUMNS) ?? apart.at(-1)!',
    replace: 'apart[0]!',
    killedBy: metricsTest,
  },
  {
    name: 'bench-lines-not-wrapped',
    defect: 'a long legend is as wide as it is',
    file: `${room}/report/terminal.ts`,
    find: 'boxWrap(text, TERMINAL_COLUMNS - indent.length)',
    replace: 'boxWrap(text, 1000)',
    killedBy: metricsTest,
  },
  {
    name: 'bench-cut-short-not-told',
    defect: 'a cell whose time was spent looks like one that is known well enough',
    file: `${room}/report/metrics.ts`,
    find: "const isCutShort = endedBy === 'time budget' || endedBy === 'most pairs';",
    replace: 'const isCutShort = false;',
    killedBy: metricsTest,
  },
  {
    name: 'bench-few-bytes-are-none',
    defect: 'a few bytes read back look like none (L5)',
    file: `${room}/report/metrics.ts`,
    find: 'Math.max(value, 0.001).toFixed(3)',
    replace: 'value.toFixed(3)',
    killedBy: metricsTest,
  },
  {
    name: 'bench-percentile-99-is-the-median',
    defect: 'the high percentile is the median',
    file: `${room}/report/cell-report.ts`,
    find: 'p99: quantile(values, 0.99)',
    replace: 'p99: quantile(values, 0.5)',
    killedBy: tokenTest,
  },
  {
    name: 'bench-sweep-serves-other-requests',
    defect: 'each value serves its own number of requests',
    file: `${room}/flags/sweep.ts`,
    find: '  return each.map((one) => ({ ...one, requests }));',
    replace: '  return each;',
    killedBy: sweepTest,
  },
  {
    name: 'bench-sweep-overrules-a-flag',
    defect: 'a flag beside the sweep of the same is lost without a word',
    file: `${room}/flags/sweep.ts`,
    find: "    excludes: ['optIn'],",
    replace: '    excludes: [],',
    killedBy: sweepTest,
  },
  {
    name: 'bench-sweep-runs-fewer-than-it-says',
    defect: 'a workload of few requests is swept over many',
    file: `${room}/flags/sweep.ts`,
    find: '  if (mode.concurrency <= requests.length) return;',
    replace: '  return;',
    killedBy: sweepTest,
  },
  {
    name: 'bench-sweep-takes-a-budget-a-value',
    defect: 'each value gets all of the time',
    file: `${room}/pair-schedule.ts`,
    find: 'budgetMs: ending.budgetMs / numBenches',
    replace: 'budgetMs: ending.budgetMs',
    killedBy: sweepTest,
  },
  {
    name: 'bench-warns-of-no-load',
    defect: 'a long run queue is told as processor time, 0 % of it',
    file: `${room}/warnings.ts`,
    find: 'if (load !== null && load.busyShare > BUSY_SHARE_TOLD) {',
    replace: 'if (load !== null && load.runnable > RUNNABLE_TOLD * numCpus) {',
    killedBy: scheduleTest,
  },
  {
    name: 'bench-model-without-those-experts',
    defect: 'K is larger than the number of experts',
    file: `${room}/flags/model-flags.ts`,
    find: 'if (layersXK.topK > preset.numExperts) {',
    replace: 'if (layersXK.topK > 64) {',
    killedBy: sweepTest,
  },
  {
    name: 'usage-peak-is-the-latest',
    defect: 'the rows in flight are those of the last step',
    file: `${workers}/thread/rank-usage.ts`,
    find: 'this.#rowBytesInFlight = Math.max(this.#rowBytesInFlight, rowBytesInFlight);',
    replace: 'this.#rowBytesInFlight = rowBytesInFlight;',
    killedBy: usageTest,
  },
  {
    name: 'usage-counts-what-was-before',
    defect: 'pauses from before the start are told, and each one again',
    file: `${workers}/thread/thread-meter.ts`,
    find: '!isLater(entry) && entry.startTime >= startedAt',
    replace: '!isLater(entry)',
    killedBy: usageTest,
  },
  {
    name: 'usage-cpu-of-all-threads',
    defect: 'the processor time of a thread is that of the process since it began',
    file: `${workers}/thread/thread-meter.ts`,
    find: 'this.#cpuUs! - cpuUs',
    replace: 'this.#cpuUs!',
    killedBy: usageTest,
  },
  {
    name: 'usage-buffers-never-come-back',
    defect: 'row buffers that came back still count as in flight',
    file: `${workers}/thread/rank.worker.ts`,
    find: '      this.#lentRowBytes -= rows.byteLength;\n',
    replace: '',
    killedBy: { test: 'test/worker/threads.integration.test.ts' },
  },
  {
    name: 'held-rows-counted-too-seldom',
    defect: 'the peak of what a half holds is missed by half',
    file: `${workers}/held-rows-peak.ts`,
    find: 'const UNSEEN_SHARE = 1 / 16;',
    replace: 'const UNSEEN_SHARE = 1 / 2;',
    killedBy: heldTest,
  },
  {
    name: 'held-rows-counted-in-each-step',
    defect: 'a half is asked what it holds after every step',
    file: `${workers}/held-rows-peak.ts`,
    find: 'const UNSEEN_SHARE = 1 / 16;',
    replace: 'const UNSEEN_SHARE = 0;',
    killedBy: heldTest,
  },
];
