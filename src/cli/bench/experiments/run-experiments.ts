/**
 * The five experiments of RFC vllm#38079, by which it found what hung its deployment: the flag off, on, and on without
 * the workers' save, the scheduler's read, or both. A row that stands still is a result, not the end of the bench.
 */

import type { ShmFlockSwitches } from '../../../contract/config.ts';
import type { DeadlineCounts, DeviceInfo } from '../../../contract/device.ts';
import { random } from '../../../workload/random.ts';
import { isLoss } from '../../../worker/pipeline/loss.ts';
import { sumOfDeadlines } from '../../../worker/thread/rank-usage.ts';
import { describeEnvironment, type Environment } from '../../environment.ts';
import type { BenchEngines } from '../engines/bench-engines.ts';
import { startEngines } from '../engines/start-engines.ts';
import type { BenchOptions } from '../bench-options.ts';
import { judgeRun, problemsOf, rateOf, serveRun, type BenchRun } from '../bench-run.ts';
import { LabelledWorkloads } from '../labelled-workloads.ts';
import type { Progress } from '../pair-schedule.ts';
import type { Cell } from '../plan.ts';
import { sampleProcessorTime } from '../measure/processor-time.ts';
import { otherLoad } from '../statistics/other-load.ts';
import { PairedComparison, type Comparison } from '../statistics/paired-comparison.ts';
import { machineOf, rankWarnings } from '../rank-warnings.ts';
import { warningsOf } from '../warnings.ts';
import { Verifier } from '../verify.ts';

/** `switches`: `null` with the flag off. `reportedHangS`: after how long the RFC's deployment hung; `null` = never. */
export type Experiment = Readonly<{ name: string; switches: ShmFlockSwitches | null; reportedHangS: number | null }>;

export const EXPERIMENTS: readonly Experiment[] = [
  { name: 'flag off', switches: null, reportedHangS: null },
  { name: 'flag on', switches: { save: true, read: true }, reportedHangS: 20 },
  { name: 'save off', switches: { save: false, read: true }, reportedHangS: 20 },
  { name: 'read off', switches: { save: true, read: false }, reportedHangS: 60 },
  { name: 'both off', switches: { save: false, read: false }, reportedHangS: null },
];

/** A run that stood still: after how long, and what it said. */
export type TimedOut = Readonly<{ afterMs: number; report: string }>;

export type ExperimentResult = Readonly<{
  experiment: Experiment;
  runs: readonly BenchRun[];
  timeouts: readonly TimedOut[];
  /** Beside the flag off, in runs of the same repeat; `null` for that itself, and where no pair ran to its end. */
  comparison: Comparison | null;
}>;

export type ExperimentsResult = Readonly<{
  environment: Environment;
  options: BenchOptions;
  experiments: readonly ExperimentResult[];
  /** Of the runs that ended; `null`: the device keeps to none. */
  deadlines: DeadlineCounts | null;
  problems: readonly string[];
  /** What a reader has to know before believing the figures. */
  warnings: readonly string[];
}>;

/** Without a number of repeats: this many, or fewer if time is short. */
const MOST_REPEATS = 12;

/**
 * Runs all five in each repeat, in an order of its own, each on workers that stay. Rejects with what makes a run
 * impossible; the workers are shut down then.
 */
export async function runExperiments(
  options: BenchOptions,
  onProgress: (progress: Progress, what: string) => void,
): Promise<ExperimentsResult> {
  const startedAt = performance.now();
  const { model } = options.session;
  const { ending, seed } = options;
  const verifier = new Verifier(model);
  const labelled = new LabelledWorkloads(options.workload, model.vocabSize, false);
  const rows = EXPERIMENTS.map((experiment) => new Row(experiment, options));
  const problems: string[] = [];
  const numRepeats = ending.kind === 'repeats' ? ending.repeats : MOST_REPEATS;
  const total = (1 + numRepeats) * rows.length;
  let done = 0;
  const serve = async (row: Row, repeat: number): Promise<BenchRun | null> => {
    const { name } = row.experiment;
    onProgress({ done, total, unit: 'run', detail: repeat < 0 ? ', warm-up' : `, repeat ${repeat + 1}` }, name);
    done++;
    const planned = { cell: row.cell, repeat, group: repeat, label: 1 + repeat };
    const run = await row.serve(async (engines) =>
      judgeRun(await serveRun(engines, planned, labelled.of(planned), options), verifier),
    );
    for (const problem of run === null ? [] : problemsOf(run, options)) problems.push(`${name}: ${problem}`);
    return run;
  };
  try {
    for (const row of rows) await serve(row, -1);
    const load = [sampleProcessorTime()];
    const setUpMs = performance.now() - startedAt;
    for (let repeat = 0; repeat < numRepeats; repeat++) {
      const elapsedMs = performance.now() - startedAt;
      const repeatMs = repeat === 0 ? 0 : (elapsedMs - setUpMs) / repeat;
      if (repeat > 0 && ending.kind === 'half-width' && elapsedMs + repeatMs > ending.budgetMs) break;
      for (const place of random(seed, `experiments/${repeat}`).permutation(rows.length)) {
        const row = rows[place]!;
        row.add(repeat, await serve(row, repeat));
      }
      load.push(sampleProcessorTime());
    }
    onProgress({ done: total, total, unit: 'run', detail: '' }, 'done');
    const off = rows[0]!;
    const environment = describeEnvironment(await off.device());
    const offRates = off.rates;
    const other = otherLoad(load.filter((sample) => sample !== null));
    return {
      environment,
      options,
      experiments: rows.map((row) => row.result(row === off ? null : off)),
      deadlines: sumOfDeadlines(rows.flatMap((row) => row.deadlines)),
      problems,
      warnings: [
        ...rankWarnings(options, machineOf(environment.numCpus), environment.isSoftwareDevice),
        ...warningsOf({ cells: [], comparisons: [], offRates, load: other, numCpus: environment.numCpus }),
      ],
    };
  } finally {
    for (const row of rows) await row.close();
  }
}

/** One experiment, on workers of its own: new ones where a run stood still. */
class Row {
  readonly experiment: Experiment;
  readonly cell: Cell;
  readonly #options: BenchOptions;
  readonly #runs: Map<number, BenchRun> = new Map();
  readonly #timeouts: TimedOut[] = [];
  #engines: BenchEngines | null = null;

  constructor(experiment: Experiment, options: BenchOptions) {
    this.experiment = experiment;
    this.#options = options;
    const isOff = experiment.switches === null;
    this.cell = isOff ? { design: 'off', optInShare: 0 } : { design: 'shm-flock', optInShare: 1 };
  }

  /** `null`: the run stood still. */
  async serve(run: (session: BenchEngines) => Promise<BenchRun>): Promise<BenchRun | null> {
    const session = await this.#open();
    const startedAt = performance.now();
    try {
      return await run(session);
    } catch (error) {
      if (!isLoss(error) || error.code === 'DEVICE_LOST') throw error;
      this.#timeouts.push({ afterMs: performance.now() - startedAt, report: error.message });
      await this.close();
      return null;
    }
  }

  add(repeat: number, run: BenchRun | null): void {
    if (run !== null) this.#runs.set(repeat, run);
  }

  get deadlines(): readonly (DeadlineCounts | null)[] {
    return [...this.#runs.values()].map(({ served }) => served.deadlines);
  }

  get rates(): readonly number[] {
    return [...this.#runs.values()].map(rateOf);
  }

  result(off: Row | null): ExperimentResult {
    const comparison = new PairedComparison(null);
    const pairs = [...this.#runs].flatMap(([repeat, run]) => {
      const beside = off === null ? undefined : off.#runs.get(repeat);
      return beside === undefined ? [] : [rateOf(run) / rateOf(beside)];
    });
    for (const ratio of pairs) comparison.add(ratio);
    return {
      experiment: this.experiment,
      runs: [...this.#runs.values()],
      timeouts: this.#timeouts,
      comparison: pairs.length === 0 ? null : comparison.end('repeats'),
    };
  }

  async device(): Promise<DeviceInfo> {
    return (await this.#open()).devices[0]!;
  }

  async close(): Promise<void> {
    await this.#engines?.close();
    this.#engines = null;
  }

  async #open(): Promise<BenchEngines> {
    const { session } = this.#options;
    const { switches } = this.experiment;
    // A fault happens to the first workers of a row; it would happen to all that take their place.
    const fault = this.#timeouts.length === 0 ? session.fault : null;
    const config = { ...session, fault, ...(switches === null ? {} : { shmFlock: switches }) };
    return (this.#engines ??= await startEngines(
      switches === null ? 'off' : 'shm-flock',
      config,
      this.#options.dataParallel,
    ));
  }
}
