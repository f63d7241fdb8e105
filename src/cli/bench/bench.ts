/** The bench: every design at every share of opted-in requests, in one process, each row checked. */

import type { DesignReference } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { designByName } from '../../capture/designs.ts';
import type { BenchEngines } from './engines/bench-engines.ts';
import { startEngines } from './engines/start-engines.ts';
import type { Environment } from '../environment.ts';
import { describeEnvironment } from '../environment.ts';
import type { BenchOptions } from './bench-options.ts';
import { judgeRun, problemsOf, rateOf, serveRun, type BenchRun, type ServedRun } from './bench-run.ts';
import { LabelledWorkloads } from './labelled-workloads.ts';
import type { Progress } from './pair-schedule.ts';
import { PairSchedule } from './pair-schedule.ts';
import type { Cell, PlannedRun } from './plan.ts';
import { cellName, planCells } from './plan.ts';
import { sampleProcessorTime } from './measure/processor-time.ts';
import type { OtherLoad } from './statistics/other-load.ts';
import { otherLoad } from './statistics/other-load.ts';
import type { Comparison } from './statistics/paired-comparison.ts';
import { Verifier } from './verify.ts';
import { machineOf, rankWarnings } from './rank-warnings.ts';
import { warningsOf } from './warnings.ts';

/** What the designs returned on the software adapter: one run of each, every row checked. */
export type ShaderCheck = Readonly<{ device: string; numDesigns: number; rowsVerified: number }>;

export type BenchResult = Readonly<{
  environment: Environment;
  options: Omit<BenchOptions, 'workload'> & Readonly<{ workload: string; repeats: number | null }>;
  cells: readonly Cell[];
  /** Each cell beside `off`; `null` for `off` itself. */
  comparisons: readonly (Comparison | null)[];
  runs: readonly BenchRun[];
  /** `null`: it was not asked for. */
  shaderCheck: ShaderCheck | null;
  /** What was not as it must be, in any run. */
  problems: readonly string[];
  /** What else the machine did meanwhile; `null`: not known. */
  otherLoad: OtherLoad | null;
  /** What a reader has to know before believing the figures. */
  warnings: readonly string[];
}>;

/**
 * Runs pairs of each cell and of `off` until the schedule ends; one run per design goes first, which is checked like
 * the others and does not count. `onProgress` hears of each run before it starts. Rejects with what makes a run
 * impossible, and with BAD_VALUE for a time budget too short for one pair; the workers are shut down then.
 */
export async function runBench(
  options: BenchOptions,
  onProgress: (progress: Progress, what: string) => void,
): Promise<BenchResult> {
  const startedAt = performance.now();
  const elapsedMs = (): number => performance.now() - startedAt;
  const cells = planCells(options.designs, options.optInShares);
  const schedule = new PairSchedule({ cells, seed: options.seed, ending: options.ending });
  const { model, routing, rowsLayers: axis = 'routers' } = options.session;
  const verifier = new Verifier(model, { recording: routing?.kind === 'replay' ? routing.recording : null, axis });
  const engines = new Map<string, BenchEngines>();
  const referenceOf = (design: string): DesignReference =>
    options.ownDesigns?.[design]?.module ?? designByName(design).name;
  const labelled = new LabelledWorkloads(options.workload, model.vocabSize, routing?.kind === 'replay');
  const runs: BenchRun[] = [];
  const problems: string[] = [];
  const serve = (run: PlannedRun, name: string, by = engines.get(run.cell.design)!): Promise<ServedRun> => {
    onProgress(schedule.progress(elapsedMs()), name);
    return serveRun(by, run, labelled.of(run), options);
  };
  const judge = (served: ServedRun, name: string): BenchRun => {
    const run = judgeRun(served, verifier);
    for (const problem of problemsOf(run, options)) problems.push(`${name}: ${problem}`);
    return run;
  };
  const checkShaders = async (): Promise<ShaderCheck> => {
    // A software adapter takes longer for a pass than ranks wait for each other.
    const { collectiveTimeoutMs: _, ...alone } = options.session;
    const session = { ...alone, device: 'webgpu', ballastMs: 0, fault: null } as const;
    let check: ShaderCheck = { device: '', numDesigns: 0, rowsVerified: 0 };
    for (const design of engines.keys()) {
      const name = `${design}, shaders`;
      const onAdapter = await startEngines(referenceOf(design), session, { size: 1, dispatch: 'modular' });
      try {
        const result = judge(await serve(warmUpOf(design), name, onAdapter), name);
        const { description } = onAdapter.devices[0]!;
        const rowsVerified = check.rowsVerified + result.verification.rowsVerified;
        check = { device: description, numDesigns: check.numDesigns + 1, rowsVerified };
      } finally {
        await onAdapter.close();
      }
    }
    return check;
  };
  try {
    const warmUp = (design: string): Promise<ServedRun> => serve(warmUpOf(design), `${design}, warm-up`);
    for (const design of new Set(cells.map((cell) => cell.design))) {
      onProgress(schedule.progress(elapsedMs()), `${design}, start`);
      engines.set(design, await startEngines(referenceOf(design), options.session, options.dataParallel));
      const before = elapsedMs();
      const { accounting, refusal } = judge(await warmUp(design), `${design}, warm-up`);
      schedule.took(design, elapsedMs() - before);
      const { submitted, refused } = accounting;
      if (refused === submitted) throw RoutedExpertsError.of('NOTHING_SERVED', submitted, refusal!);
    }
    for (const end = elapsedMs() + options.clockWarmUpMs; elapsedMs() < end;) await warmUp('off');
    const shaderCheck = options.checksShaders ? await checkShaders() : null;
    schedule.checkBudget(elapsedMs());
    const load = [sampleProcessorTime()];
    for (let group = schedule.next(elapsedMs()); group !== null; group = schedule.next(elapsedMs())) {
      const before = elapsedMs();
      // While runs are judged a GPU is idle, and its clocks fall: the runs of a group come straight after a warm-up.
      if (options.clockWarmUpMs > 0) await warmUp('off');
      const served: ServedRun[] = [];
      for (const run of group) served.push(await serve(run, cellName(run.cell)));
      schedule.add(group, served.map(rateOf));
      for (const run of served) runs.push(judge(run, cellName(run.planned.cell)));
      for (const { cell } of group) schedule.took(cell.design, (elapsedMs() - before) / group.length);
      load.push(sampleProcessorTime());
    }
    onProgress(schedule.progress(elapsedMs()), 'done');
    const { workload, session, ...rest } = options;
    const { routing: _, ...told } = session;
    const environment = describeEnvironment(engines.get('off')!.devices[0]!);
    const repeats = options.ending.kind === 'repeats' ? options.ending.repeats : null;
    const comparisons = schedule.end();
    const offRates = runs.filter(({ cell }) => cell.design === 'off').map(rateOf);
    const other = otherLoad(load.filter((sample) => sample !== null));
    return {
      environment,
      options: { ...rest, repeats, session: told, workload: workload.name },
      cells,
      comparisons,
      runs,
      shaderCheck,
      problems,
      otherLoad: other,
      warnings: [
        ...rankWarnings(options, machineOf(environment.numCpus), environment.isSoftwareDevice),
        ...warningsOf({ cells, comparisons, offRates, load: other, numCpus: environment.numCpus }),
      ],
    };
  } finally {
    for (const each of engines.values()) await each.close();
  }
}

function warmUpOf(design: string): PlannedRun {
  return { cell: { design, optInShare: 1 }, repeat: -1, group: -1, label: 0 };
}
