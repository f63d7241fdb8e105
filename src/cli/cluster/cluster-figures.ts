/** What a virtual cluster came to, as figures: modelled, all of them. */

import type { NodeTraffic } from '../../sim/cluster/cluster.ts';
import { VirtualCluster, type ClusterResult, type ClusterStall } from '../../sim/cluster/cluster.ts';
import type { ClusterPasses } from '../../sim/cluster/virtual-lockstep.ts';
import { rankReport, spread, type RankReport, type Spread } from '../bench/report/rank-report.ts';
import { clusterOptionsOf, type ClusterCell } from './cluster-cell.ts';

/** ms. */
export type MeanSpread = Spread & Readonly<{ mean: number }>;

/** How the slowest of N ranks grows with N, behind the warm-up; ms, without the wait for the others. */
export type Slowest = Readonly<{
  /** Of every rank's own passes, taken together. */
  single: MeanSpread;
  /** Of each pass the rank that took longest. */
  slowest: MeanSpread;
  /** What the slowest would be if ranks and passes had nothing to do with each other: N draws from `single`. */
  drawn: Readonly<{ mean: number; p99: number }>;
}>;

export type BrokenLaw = Readonly<{
  law: string;
  kind: 'wrong' | 'stall' | 'crash';
  engine: number | null;
  what: string;
  /** The last events of the engine before it. */
  story: readonly string[];
}>;

export type ClusterFigures = Readonly<{
  cell: ClusterCell;
  numRanks: number;
  /** Output tokens per second of virtual time, of all engines. */
  tokensPerSecond: number;
  /** Until all ranks have run it, as the first rank sees it. `null`: no pass was counted. */
  stepMs: MeanSpread | null;
  slowest: Slowest | null;
  straggler: Readonly<{ rank: number; lastShare: number }> | null;
  /** The rank that most often came last to a pass, after most others. `null`: there is one engine. */
  latecomer: Readonly<{ rank: number; lateShare: number }> | null;
  /** Of small clusters. */
  ranks: readonly RankReport[] | null;
  stall: ClusterStall | null;
  broken: BrokenLaw | null;
  /** How often each law was broken that the design gives up. */
  declared: Readonly<Record<string, number>>;
  counts: ClusterResult['counts'];
  nodes: readonly NodeTraffic[];
  numPasses: number;
  numEvents: number;
  hash: string;
}>;

/** Ranks that have a line of their own. */
const MOST_RANK_LINES = 16;
const STORY_LINES = 40;
const EVENTS_AT_ONCE = 1_000_000;

/** Runs a cluster to its end. Throws BAD_VALUE for one that cannot run. */
export function runCell(cell: ClusterCell): ClusterFigures {
  const options = clusterOptionsOf(cell);
  const result = runToEnd(new VirtualCluster(options));
  const { passes, stall, counts, nodes, numPasses, numEvents, hash, violation, brokenEngine } = result;
  const first = passes[0]!;
  const stepMs = first.stepMs.length === 0 ? null : meanSpread(first.stepMs);
  const most = passes.reduce((best, { numLast }, rank) => (numLast > passes[best]!.numLast ? rank : best), 0);
  const late = passes.reduce((worst, { numLate }, rank) => (numLate > passes[worst]!.numLate ? rank : worst), 0);
  const isSmall = passes.length <= MOST_RANK_LINES && stepMs !== null;
  return {
    cell,
    numRanks: passes.length,
    tokensPerSecond: result.measured > 0 ? counts.tokens / (result.measured / 1e6) : 0,
    stepMs,
    slowest: stepMs === null ? null : slowestOf(passes),
    straggler: stepMs === null ? null : { rank: most, lastShare: passes[most]!.numLast / first.stepMs.length },
    latecomer:
      stepMs === null || cell.numEngines === 1
        ? null
        : { rank: late, lateShare: passes[late]!.numLate / first.stepMs.length },
    ranks: isSmall ? passes.map((each, rank) => rankReport(rank, [each])) : null,
    stall,
    broken: violation && {
      law: violation.law,
      kind: violation.kind,
      engine: brokenEngine,
      what: violation.message,
      story: brokenEngine === null ? [] : storyOf(cell, brokenEngine),
    },
    declared: Object.fromEntries(result.declared),
    counts,
    nodes,
    numPasses,
    numEvents,
    hash,
  };
}

/** The same run again, with the events of one engine told. */
function storyOf(cell: ClusterCell, engine: number): readonly string[] {
  const cluster = new VirtualCluster(clusterOptionsOf(cell), { tracedEngine: engine });
  return runToEnd(cluster).lines.slice(-STORY_LINES);
}

function runToEnd(cluster: VirtualCluster): ClusterResult {
  for (let more = true; more;) more = cluster.run(EVENTS_AT_ONCE);
  return cluster.result();
}

export function slowestOf(passes: readonly Pick<ClusterPasses, 'ownMs'>[]): Slowest {
  const numPasses = Math.min(...passes.map(({ ownMs }) => ownMs.length));
  const own = new Float64Array(numPasses * passes.length);
  const slowest: number[] = [];
  for (let pass = 0; pass < numPasses; pass += 1) {
    let longest = 0;
    for (const [rank, { ownMs }] of passes.entries()) {
      const ms = ownMs[pass]!;
      own[pass * passes.length + rank] = ms;
      longest = Math.max(longest, ms);
    }
    slowest.push(longest);
  }
  own.sort();
  const at = (share: number): number => own[Math.min(own.length - 1, Math.floor(share * own.length))]!;
  const mean = own.reduce((sum, ms) => sum + ms, 0) / own.length;
  const single = { mean, p50: at(0.5), p99: at(0.99), max: own.at(-1)! };
  const numRanks = passes.length;
  return {
    single,
    slowest: meanSpread(slowest),
    drawn: { mean: meanOfMost(own, numRanks), p99: at(0.99 ** (1 / numRanks)) },
  };
}

/** The mean of the largest of `count` draws from `sorted`. */
function meanOfMost(sorted: Float64Array, count: number): number {
  let mean = 0;
  let below = 0;
  for (const [i, ms] of sorted.entries()) {
    const upTo = ((i + 1) / sorted.length) ** count;
    mean += ms * (upTo - below);
    below = upTo;
  }
  return mean;
}

function meanSpread(values: readonly number[]): MeanSpread {
  return { mean: values.reduce((sum, value) => sum + value, 0) / values.length, ...spread(values) };
}
