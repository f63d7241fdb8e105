/** The bench: every design at every share of opted-in requests, in one process, each row checked. */

import type { CaptureLiveCounts } from '../../contract/capture.ts';
import type { DesignReference } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { DEFAULT_PREFIX_ROWS } from '../../capture/deltas/prefix-rows.ts';
import { designByName, type DeclaredGap } from '../../capture/designs.ts';
import type { LoopMode } from '../../workload/arrivals.ts';
import { optIn } from '../../workload/opt-in.ts';
import { random } from '../../workload/random.ts';
import type { Workload } from '../../workload/workload.ts';
import type { Environment } from '../environment.ts';
import { describeEnvironment } from '../environment.ts';
import { LabelledWorkloads } from './labelled-workloads.ts';
import type { Ending, Progress } from './pair-schedule.ts';
import { PairSchedule } from './pair-schedule.ts';
import type { Cell, PlannedRun } from './plan.ts';
import { cellName, planCells } from './plan.ts';
import { sampleProcessorTime } from './measure/processor-time.ts';
import type { ServeResult } from './serve-workload.ts';
import { serveWorkload } from './serve-workload.ts';
import type { SessionConfig } from '../../host/design-session.ts';
import { DesignSession } from '../../host/design-session.ts';
import type { OtherLoad } from './statistics/other-load.ts';
import { otherLoad } from './statistics/other-load.ts';
import type { Comparison } from './statistics/paired-comparison.ts';
import type { Verification } from './verify.ts';
import { Verifier } from './verify.ts';
import { WantedBytes } from './measure/wanted-bytes.ts';
import { warningsOf } from './warnings.ts';

/** A design of the caller's own, and what it gives up. */
export type OwnDesign = Readonly<{ module: DesignReference; gaps: readonly DeclaredGap[] }>;

export type BenchOptions = Readonly<{
  /** By name. Those that are not built in stand in `ownDesigns`. */
  designs: readonly string[];
  ownDesigns?: Readonly<Record<string, OwnDesign>>;
  optInShares: readonly number[];
  ending: Ending;
  /** For how long `off` serves before the first pair, so that a GPU's clocks have risen; 0 = not at all. */
  clockWarmUpMs: number;
  seed: number;
  workload: Workload;
  mode: LoopMode;
  /** Share of requests that are aborted at a random moment. */
  abortShare: number;
  session: SessionConfig;
}>;

/** What is left after a drain; all zero unless something leaks (L7). */
export type Leaks = Readonly<{
  blocks: number;
  requests: number;
  captureBytes: number;
  ringSlots: number;
  buffers: number;
  batchEntries: number;
}>;

/** How the requests of a run ended; the four add up to those submitted. */
export type Accounting = Readonly<{
  submitted: number;
  finished: number;
  aborted: number;
  refused: number;
  lost: number;
}>;

export type BenchRun = Readonly<{
  cell: Cell;
  repeat: number;
  /** See `PlannedRun`. */
  group: number;
  served: Omit<ServeResult, 'requests'>;
  /** The most bytes of rows that may leave the devices: of the scheduled tokens of requests that opted in (L5). */
  wantedRowBytes: number;
  /** Output tokens delivered. */
  outputTokens: number;
  verification: Verification;
  accounting: Accounting;
  leaks: Leaks;
  refusal: string | null;
}>;

export type BenchResult = Readonly<{
  environment: Environment;
  options: Omit<BenchOptions, 'workload'> & Readonly<{ workload: string; repeats: number | null }>;
  cells: readonly Cell[];
  /** Each cell beside `off`; `null` for `off` itself. */
  comparisons: readonly (Comparison | null)[];
  runs: readonly BenchRun[];
  /** What was not as it must be, in any run. */
  problems: readonly string[];
  /** What else the machine did meanwhile; `null`: not known. */
  otherLoad: OtherLoad | null;
  /** What a reader has to know before believing the figures. */
  warnings: readonly string[];
}>;

/**
 * Runs pairs of each cell and of `off` until the schedule ends; one run per design goes first, which is checked like
 * the others and not measured. `onProgress` hears of each run before it starts. Rejects with what makes a run
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
  const { model, routing } = options.session;
  const verifier = new Verifier(model, routing?.kind === 'replay' ? routing.recording : null);
  const sessions = new Map<string, DesignSession>();
  const labelled = new LabelledWorkloads(options.workload, model.vocabSize, routing?.kind === 'replay');
  const runs: BenchRun[] = [];
  const problems: string[] = [];
  const runOnce = async (run: PlannedRun, name: string): Promise<BenchRun> => {
    const { design } = run.cell;
    onProgress(schedule.progress(elapsedMs()), name);
    const before = elapsedMs();
    const result = await runCell(sessions.get(design)!, run, labelled.of(run), options, verifier);
    schedule.took(design, elapsedMs() - before);
    for (const problem of problemsOf(result, options)) problems.push(`${name}: ${problem}`);
    return result;
  };
  try {
    const warmUp = (design: string): Promise<BenchRun> => {
      const cell = { design, optInShare: 1 };
      return runOnce({ cell, repeat: -1, group: -1, label: 0 }, `${design}, warm-up`);
    };
    for (const design of new Set(cells.map((cell) => cell.design))) {
      const reference = options.ownDesigns?.[design]?.module ?? designByName(design).name;
      onProgress(schedule.progress(elapsedMs()), `${design}, start`);
      sessions.set(design, await DesignSession.start(reference, options.session));
      const { accounting, refusal } = await warmUp(design);
      const { submitted, refused } = accounting;
      if (refused === submitted) throw RoutedExpertsError.of('NOTHING_SERVED', submitted, refusal!);
    }
    for (const end = elapsedMs() + options.clockWarmUpMs; elapsedMs() < end;) await warmUp('off');
    schedule.checkBudget(elapsedMs());
    const load = [sampleProcessorTime()];
    for (let group = schedule.next(elapsedMs()); group !== null; group = schedule.next(elapsedMs())) {
      const rates: number[] = [];
      for (const run of group) {
        runs.push(await runOnce(run, cellName(run.cell)));
        rates.push(rateOf(runs.at(-1)!));
      }
      schedule.add(group, rates);
      load.push(sampleProcessorTime());
    }
    onProgress(schedule.progress(elapsedMs()), 'done');
    const { workload, session, ...rest } = options;
    const { routing: _, ...told } = session;
    const environment = describeEnvironment(sessions.get('off')!.executor.devices[0]!);
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
      problems,
      otherLoad: other,
      warnings: warningsOf({ cells, comparisons, offRates, load: other, numCpus: environment.numCpus }),
    };
  } finally {
    for (const session of sessions.values()) await session.close();
  }
}

/** Output tokens per second. */
export function rateOf({ outputTokens, served }: BenchRun): number {
  return outputTokens / (served.wallMs / 1000);
}

async function runCell(
  session: DesignSession,
  { cell, repeat, group }: PlannedRun,
  workload: Workload,
  options: BenchOptions,
  verifier: Verifier,
): Promise<BenchRun> {
  const wanted = new WantedBytes(options.session.model);
  const result = await serveWorkload({
    session,
    workload,
    optedIn: optIn(workload, cell.optInShare, options.seed),
    mode: options.mode,
    abortAfter: planAborts(workload, options.abortShare, options.seed),
    onBegin: (step) => wanted.add(step),
    // One run in many tells as much of the memory, and leaves the times of the others alone.
    countsHeldRows: repeat === 0,
  });
  const { requests, ...served } = result;
  // `off` hands out no rows by definition: only its tokens are checked.
  const checked = cell.design === 'off' ? requests.map((request) => ({ ...request, optedIn: false })) : requests;
  const verification = verifier.verify(checked);
  const count = (...reasons: (string | null)[]) => requests.filter((r) => reasons.includes(r.finishReason)).length;
  const held: CaptureLiveCounts = served.engineStats.capture ?? { requests: 0, bytes: 0 };
  const workers = served.workerLiveCounts;
  return {
    cell,
    repeat,
    group,
    served,
    wantedRowBytes: wanted.bytes * session.executor.devices.length,
    outputTokens: requests.reduce((sum, request) => sum + request.outputTokenIds.length, 0),
    verification,
    accounting: {
      submitted: requests.length,
      finished: count('stop', 'length'),
      aborted: count('abort'),
      refused: count('refused'),
      lost: count(null, 'error'),
    },
    leaks: {
      blocks: served.engineStats.numUsedBlocks,
      requests:
        served.engineStats.numRunning + served.engineStats.numWaiting + held.requests + workers.capture.requests,
      captureBytes: held.bytes + workers.capture.bytes,
      ringSlots: workers.ringSlots,
      buffers: workers.lentBuffers,
      batchEntries: workers.batchEntries,
    },
    refusal: requests.find((request) => request.refusal !== null)?.refusal ?? null,
  };
}

/** Which requests are aborted, and after how many output tokens: drawn from the seed, the same in every cell. */
function planAborts(workload: Workload, share: number, seed: number): (number | null)[] {
  const stream = random(seed, 'bench/aborts');
  const victims = optIn(workload, share, seed + 1);
  return workload.requests.map(({ maxTokens }, i) => {
    const after = stream.below(maxTokens);
    return victims[i] ? after : null;
  });
}

/**
 * Whether a request that ended by itself may lack rows: the design says so, or the policy under which `deltas` runs.
 */
function mayMissRows({ design }: Cell, options: BenchOptions): boolean {
  const policy = options.session.prefixRows ?? DEFAULT_PREFIX_ROWS;
  if (design === 'deltas') return policy === 'share' || policy === 'computed-only';
  return gapsOf(design, options).some(({ missing }) => missing !== undefined && missing !== 'aborted');
}

function gapsOf(design: string, { ownDesigns }: BenchOptions): readonly DeclaredGap[] {
  return (ownDesigns?.[design] ?? designByName(design)).gaps;
}

/** Everything that must be true of a run, or what is not. */
export function problemsOf(run: BenchRun, options: BenchOptions): string[] {
  const { cell, served, wantedRowBytes, verification, accounting, leaks } = run;
  const problems: string[] = [];
  const { rowsMismatched, rowsImpossible, rowsMissingOfFinished, wrongTokens, requestsWithWrongCount, firstProblem } =
    verification;
  if (rowsMissingOfFinished > 0 && !mayMissRows(cell, options)) {
    problems.push(`${rowsMissingOfFinished} rows are missing that ${cell.design} does not give up (L1)`);
  }
  if (rowsMismatched > 0) problems.push(`${rowsMismatched} rows differ from the oracle (L2)`);
  if (rowsImpossible > 0) problems.push(`${rowsImpossible} rows hold a layer without K distinct experts`);
  if (wrongTokens > 0) problems.push(`${wrongTokens} tokens differ from the oracle`);
  if (requestsWithWrongCount > 0) problems.push(`${requestsWithWrongCount} requests got a wrong number of rows (L1)`);
  if (accounting.lost > 0) {
    const reason = run.refusal === null ? '' : `: ${run.refusal}`;
    problems.push(`${accounting.lost} requests are unaccounted for${reason}`);
  }
  const { captureDeviceToHost } = served.transfers;
  if (captureDeviceToHost > wantedRowBytes && gapsOf(cell.design, options).every(({ law }) => law !== 'L5')) {
    problems.push(`${captureDeviceToHost} bytes left the devices, of which ${wantedRowBytes} are due (L5)`);
  }
  const held = Object.entries(leaks).filter(([, value]) => value !== 0);
  for (const [what, value] of held) problems.push(`${value} ${what} left after the drain (L7)`);
  if (problems.length > 0 && firstProblem !== null) problems.push(`first: ${firstProblem}`);
  return problems;
}
