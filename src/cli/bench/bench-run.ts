/** One run of a cell: served, then judged. */

import type { CaptureLiveCounts } from '../../contract/capture.ts';
import { DEFAULT_PREFIX_ROWS } from '../../capture/deltas/prefix-rows.ts';
import { designByName, gapsThatApply, type DeclaredGap } from '../../capture/designs.ts';
import type { BenchEngines } from './engines/bench-engines.ts';
import { optIn } from '../../workload/opt-in.ts';
import { random } from '../../workload/random.ts';
import type { Workload } from '../../workload/workload.ts';
import type { BenchOptions } from './bench-options.ts';
import type { Cell, PlannedRun } from './plan.ts';
import type { ServeResult } from './serve-workload.ts';
import type { Verification, Verifier } from './verify.ts';

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
  /** Output tokens delivered. */
  outputTokens: number;
  verification: Verification;
  accounting: Accounting;
  leaks: Leaks;
  refusal: string | null;
}>;

/** A run that nobody has judged yet; it holds every row that was delivered. */
export type ServedRun = Pick<BenchRun, 'outputTokens'> & Readonly<{ planned: PlannedRun; served: ServeResult }>;

/** Output tokens per second. */
export function rateOf({ outputTokens, served }: BenchRun | ServedRun): number {
  return outputTokens / (served.wallMs / 1000);
}

export async function serveRun(
  engines: BenchEngines,
  planned: PlannedRun,
  workload: Workload,
  options: BenchOptions,
): Promise<ServedRun> {
  const served = await engines.serve({
    workload,
    optedIn: optIn(workload, planned.cell.optInShare, options.seed),
    mode: options.mode,
    abortAfter: planAborts(workload, options.abortShare, options.seed),
    // One run in many tells as much of the memory, and leaves the times of the others alone.
    countsHeldRows: planned.repeat === 0,
  });
  const outputTokens = served.requests.reduce((sum, request) => sum + request.outputTokenIds.length, 0);
  return { planned, served, outputTokens };
}

export function judgeRun({ planned, served: result, outputTokens }: ServedRun, verifier: Verifier): BenchRun {
  const { cell, repeat, group } = planned;
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
    outputTokens,
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

function gapsOf(design: string, { ownDesigns, session }: BenchOptions): readonly DeclaredGap[] {
  const { gaps } = ownDesigns?.[design] ?? designByName(design);
  return gapsThatApply(gaps, { isOffloading: session.kvOffload !== undefined });
}

/** Everything that must be true of a run, or what is not. */
export function problemsOf(run: BenchRun, options: BenchOptions): string[] {
  const { cell, served, verification, accounting, leaks } = run;
  const problems: string[] = [];
  const gaps = gapsOf(cell.design, options);
  const { rowsMismatched, rowsImpossible, rowsMissingOfFinished, wrongTokens, requestsWithWrongCount, firstProblem } =
    verification;
  if (rowsMissingOfFinished > 0 && !mayMissRows(cell, options)) {
    problems.push(`${rowsMissingOfFinished} rows are missing that ${cell.design} does not give up (L1)`);
  }
  // Rows by KV slot are stale where KV comes back from host memory.
  const isGivenUp = gaps.some(({ law, missing }) => law === 'L2' && missing === undefined);
  if (rowsMismatched > 0 && !isGivenUp) problems.push(`${rowsMismatched} rows differ from the oracle (L2)`);
  if (rowsImpossible > 0 && !isGivenUp) problems.push(`${rowsImpossible} rows hold a layer without K distinct experts`);
  if (wrongTokens > 0) problems.push(`${wrongTokens} tokens differ from the oracle`);
  if (requestsWithWrongCount > 0) problems.push(`${requestsWithWrongCount} requests got a wrong number of rows (L1)`);
  if (accounting.lost > 0) {
    const reason = run.refusal === null ? '' : `: ${run.refusal}`;
    problems.push(`${accounting.lost} requests are unaccounted for${reason}`);
  }
  const { wantedRowBytes } = served;
  const { captureDeviceToHost } = served.transfers;
  if (captureDeviceToHost > wantedRowBytes && gaps.every(({ law }) => law !== 'L5')) {
    problems.push(`${captureDeviceToHost} bytes left the devices, of which ${wantedRowBytes} are due (L5)`);
  }
  const held = Object.entries(leaks).filter(([, value]) => value !== 0);
  for (const [what, value] of held) problems.push(`${value} ${what} left after the drain (L7)`);
  if (problems.length > 0 && firstProblem !== null) problems.push(`first: ${firstProblem}`);
  return problems;
}
