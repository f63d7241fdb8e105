/** What a bench of one rank in lockstep says of what things take, in the form that `cluster --costs` reads. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rowShape } from '../../../capture/row-shape.ts';
import { createSharedRows } from '../../../capture/shm-flock/posix-shared-rows.ts';
import type { ModelConfig } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import { DEFAULT_COSTS, type ClusterCosts } from '../../../sim/cluster/costs.ts';
import type { BenchResult } from '../bench.ts';
import { median, quantile } from '../statistics/quantile.ts';

const NUM_QUANTILES = 101;

/** `null`: the bench ran several ranks, or none in lockstep, or not without capture. */
export function measuredCosts({ runs, options, environment }: BenchResult): ClusterCosts | null {
  const { session, dataParallel } = options;
  const off = runs.filter(({ cell }) => cell.design === 'off');
  const passes = passesOf(off);
  const { tokens, ownUs } = passes;
  if (session.numRanks !== 1 || dataParallel.size !== 1 || tokens.length === 0) return null;
  const { fixedUs, perTokenUs } = session.clockTimes
    ? { fixedUs: 1e3 * session.clockTimes.stepMs, perTokenUs: session.clockTimes.perTokenUs }
    : fittedLine(tokens, ownUs);
  const rest = ownUs.map((us, i) => us - fixedUs - perTokenUs * tokens[i]!);
  const restUs = Array.from({ length: NUM_QUANTILES }, (_, i) => rounded(quantile(rest, i / (NUM_QUANTILES - 1))));
  const perRequest = off.map(({ served }) => (1e3 * served.schedulerMs) / served.requestSteps);
  const { cpu, numCpus, node, commit, device } = environment;
  const reads = session.clockTimes && {
    readLatencyUs: rounded(1e3 * session.clockTimes.copyLatencyMs),
    readGBPerS: session.clockTimes.copyGBPerS,
  };
  const shared = sharedRowsCosts(session.model);
  const known = { ...DEFAULT_COSTS, ...reads, ...shared };
  const blocking = passesOf(runs.filter(({ cell }) => cell.design === 'shm-flock'));
  return {
    ...known,
    source:
      `measured: one rank, ${device}, ${cpu} × ${numCpus}, Node ${node}, commit ${commit ?? 'unknown'}; ` +
      'messages and links as built in',
    pass: { fixedUs: rounded(fixedUs), perTokenUs: rounded(perTokenUs), restUs },
    ...(blocking.tokens.length > 0 && { blockingReadUs: blockingRead(passes, blocking, known) }),
    engineCallUs: 0,
    enginePerRequestUs: rounded(median(perRequest) / 2),
  };
}

type OwnPasses = Readonly<{ tokens: readonly number[]; ownUs: readonly number[] }>;

/** What the rank took for each of its passes, without a wait for others. */
function passesOf(runs: BenchResult['runs']): OwnPasses {
  const passes = runs.flatMap(({ served }) => served.ranks ?? []);
  return {
    tokens: passes.flatMap(({ numTokens }) => numTokens),
    ownUs: passes.flatMap(({ stepMs, waitMs }) => stepMs.map((ms, i) => 1e3 * (ms - waitMs[i]!))),
  };
}

/** A pass of `shm-flock` is longer by two of them, by the wait for its results, and by the save. */
function blockingRead(off: OwnPasses, blocking: OwnPasses, known: ClusterCosts): number {
  const longer = median(blocking.ownUs) - median(off.ownUs);
  const save = known.lockUs + known.savePerRowUs * median(blocking.tokens);
  return rounded(Math.max(known.readLatencyUs, (longer - known.readLatencyUs - save) / 2));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Least squares; what a token adds is not negative. */
function fittedLine(tokens: readonly number[], us: readonly number[]): { fixedUs: number; perTokenUs: number } {
  const [meanTokens, meanUs] = [mean(tokens), mean(us)];
  const variance = mean(tokens.map((count) => (count - meanTokens) ** 2));
  const together = mean(tokens.map((count, i) => (count - meanTokens) * (us[i]! - meanUs)));
  const perTokenUs = variance === 0 ? 0 : Math.max(0, together / variance);
  return { fixedUs: Math.max(0, meanUs - perTokenUs * meanTokens), perTokenUs };
}

const NUM_TRIES = 200;
const ROWS = 256;

/** Measured on this machine; where there is no shared memory the built-in costs stay. */
function sharedRowsCosts(model: ModelConfig): Partial<ClusterCosts> {
  const { bytesPerRow, entriesPerRow } = rowShape(model, 'int32');
  const folder = mkdtempSync(join(tmpdir(), 'routed-experts-costs-'));
  const where = { name: `/routed-experts-costs-${process.pid}`, lockFile: join(folder, 'lock') };
  try {
    const shared = createSharedRows(where, ROWS * bytesPerRow);
    try {
      const some = new Int32Array(entriesPerRow);
      const all = new Int32Array(ROWS * entriesPerRow);
      const locked = (work: () => void): number => {
        const times = Array.from({ length: NUM_TRIES }, () => {
          const startedAt = performance.now();
          shared.lock();
          work();
          shared.unlock();
          return 1e3 * (performance.now() - startedAt);
        });
        return median(times);
      };
      const lockUs = locked(() => {});
      const save = locked(() => {
        for (let row = 0; row < ROWS; row++) shared.rows.set(some, row * entriesPerRow);
      });
      const load = locked(() => all.set(shared.rows.subarray(0, all.length)));
      return {
        lockUs: rounded(lockUs),
        savePerRowUs: rounded(Math.max(0, save - lockUs) / ROWS),
        loadPerRowUs: rounded(Math.max(0, load - lockUs) / ROWS),
      };
    } finally {
      shared.close();
    }
  } catch (error) {
    if (!(error instanceof RoutedExpertsError)) throw error;
    return {};
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function rounded(value: number): number {
  return Number(value.toPrecision(5));
}
