/** The five experiments of RFC vllm#38079, and the table that shows them, measured or modelled. */

import type { ShmFlockSwitches } from '../../../contract/config.ts';
import { spreadText, type Spread } from '../report/rank-report.ts';
import { textTable, type TextColumn } from '../report/text-table.ts';

/** `switches`: `null` with the flag off. `reportedHangS`: after how long the RFC's deployment hung; `null` = never. */
export type Experiment = Readonly<{ name: string; switches: ShmFlockSwitches | null; reportedHangS: number | null }>;

export const EXPERIMENTS: readonly Experiment[] = [
  { name: 'flag off', switches: null, reportedHangS: null },
  { name: 'flag on', switches: { save: true, read: true }, reportedHangS: 20 },
  { name: 'save off', switches: { save: false, read: true }, reportedHangS: 20 },
  { name: 'read off', switches: { save: true, read: false }, reportedHangS: 60 },
  { name: 'both off', switches: { save: false, read: false }, reportedHangS: null },
];

/** What is not known is `null`. */
export type ExperimentRow = Experiment &
  Readonly<{
    tokensPerSecond: number | null;
    ratio: string | null;
    stepMs: Spread | null;
    straggler: Readonly<{ rank: number; lastShare: number }> | null;
    /** After how many ms each run stood still that did. */
    timeoutsMs: readonly number[];
  }>;

const COLUMNS: readonly TextColumn[] = [
  { head: 'shm-flock', align: 'left' },
  { head: 'tokens/s', align: 'right' },
  { head: 'vs off', align: 'right' },
  { head: 'step ms\np50/p99/max', align: 'right' },
  { head: 'last most', align: 'right' },
  { head: 'time-outs', align: 'left' },
  { head: 'RFC:\nhang at', align: 'right' },
];

export function experimentsTable(rows: readonly ExperimentRow[]): string {
  return textTable(
    COLUMNS,
    rows.map(({ name, tokensPerSecond, ratio, stepMs, straggler, timeoutsMs, reportedHangS }) => [
      name,
      tokensPerSecond?.toFixed(0) ?? '–',
      ratio ?? '–',
      stepMs === null ? '–' : spreadText(stepMs),
      straggler === null ? '–' : `rank ${straggler.rank} ${(100 * straggler.lastShare).toFixed(0)} %`,
      timeoutsMs.length === 0 ? 'none' : timeoutsMs.map((ms) => `at ${(ms / 1e3).toFixed(1)} s`).join(', '),
      reportedHangS === null ? 'none' : `~${reportedHangS} s`,
    ]),
  );
}

/** Below the table. */
export const EXPERIMENTS_LEGEND: readonly string[] = [
  'step: until all ranks have run it; last most: the rank that most often was the last, with its share of steps',
  'save off: the workers write no rows to shared memory, in no step; read off: the scheduler does not read ' +
    'those of every request that stops',
  'RFC: vllm#38079, with TP 8, DP 2, EP 16 on two nodes',
];
