/** From the flags of `cluster` to the clusters that they ask for. */

import { readFileSync } from 'node:fs';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { StepTime } from '../../kernels/device/clock/clock-times.ts';
import type { ClusterDispatch, Lengths } from '../../sim/cluster/cluster-options.ts';
import { DEFAULT_COSTS, parseCosts, type ClusterCosts } from '../../sim/cluster/costs.ts';
import { EXPERIMENTS } from '../bench/experiments/experiments.ts';
import type { ReportFlags } from '../campaign/core/kind.ts';
import type { RunFlags } from '../campaign/run-flags.ts';
import type { ClusterCell, ClusterMode } from './cluster-cell.ts';

/** Times in µs of virtual time, `collectiveTimeout` in s. */
export type ClusterFlags = RunFlags &
  ReportFlags & {
    preset?: string;
    dataParallel?: number;
    tensorParallel?: number;
    nodes?: number;
    model: string;
    design: string[];
    optIn: number;
    concurrency: number;
    gap: number;
    promptLength: Lengths;
    outputLength: Lengths;
    queueDepth: number;
    maxNumBatchedTokens: number;
    stepTime?: StepTime;
    costs?: string;
    duration: number;
    warmUp?: number;
    shmSave: boolean;
    shmRead: boolean;
    lock: 'engine' | 'node';
    dispatch: ClusterDispatch;
    realRanks: 'first' | 'all';
    collectiveTimeout: number;
    fault: string[];
    experiments?: boolean;
    scale?: number[];
    seeds?: number;
    against?: string[];
    seed: number;
  };

/** What a preset fixes; a flag that is given goes before it. */
export const PRESETS: Readonly<
  Record<string, Readonly<Pick<ClusterFlags, 'dataParallel' | 'tensorParallel' | 'nodes' | 'model'>>>
> = { rfc: { model: 'gpt-oss-120b', dataParallel: 2, tensorParallel: 8, nodes: 2 } };

const RANKS_OF_NODE = 8;

/** Throws BAD_VALUE and BAD_FILE. */
export function cellsOf(
  given: ClusterFlags,
  isGiven: (flag: string) => boolean,
): { mode: ClusterMode; cells: ClusterCell[] } {
  const preset = Object.entries(PRESETS[given.preset ?? ''] ?? {}).filter(([flag]) => !isGiven(flag));
  const flags: ClusterFlags = { ...given, ...Object.fromEntries(preset) };
  if (flags.experiments) {
    const cells = EXPERIMENTS.map(({ name, switches }) =>
      switches === null
        ? { ...cellOf(flags, 'off'), label: name }
        : { ...cellOf(flags, 'shm-flock'), label: name, switches },
    );
    return { mode: 'experiments', cells };
  }
  if (flags.scale !== undefined) {
    const sizes = flags.scale.map((ranks) => ({ ...flags, dataParallel: enginesOf(ranks, flags) }));
    return { mode: 'scale', cells: sizes.flatMap((each) => each.design.map((design) => cellOf(each, design))) };
  }
  if (flags.seeds !== undefined) {
    const seeds = Array.from({ length: flags.seeds }, (_, i) => flags.seed + i);
    const cells = flags.design.flatMap((design) => seeds.map((seed) => ({ ...cellOf(flags, design), seed })));
    return { mode: 'seeds', cells: cells.map((cell) => ({ ...cell, label: `${cell.label}, seed ${cell.seed}` })) };
  }
  return { mode: 'cells', cells: flags.design.map((design) => cellOf(flags, design)) };
}

function enginesOf(ranks: number, { tensorParallel = RANKS_OF_NODE }: ClusterFlags): number {
  if (ranks % tensorParallel === 0) return ranks / tensorParallel;
  const wanted = `numbers of ranks that ${tensorParallel}, the ranks of an engine (--tensor-parallel), divides`;
  throw RoutedExpertsError.of('BAD_VALUE', '--scale', ranks, wanted);
}

export function cellOf(flags: ClusterFlags, design: string): ClusterCell {
  const { dataParallel: numEngines = 2, tensorParallel = RANKS_OF_NODE, duration } = flags;
  const numRanks = numEngines * tensorParallel;
  return {
    label: design,
    model: flags.model,
    design,
    switches: { save: flags.shmSave, read: flags.shmRead },
    numEngines,
    tensorParallel,
    numNodes: flags.nodes ?? nodesOf(numRanks, numEngines),
    served: null,
    concurrency: flags.concurrency,
    gap: flags.gap,
    optInShare: flags.optIn,
    prompt: flags.promptLength,
    output: flags.outputLength,
    queueDepth: flags.queueDepth,
    maxNumBatchedTokens: flags.maxNumBatchedTokens,
    dispatch: flags.dispatch,
    lock: flags.lock,
    realRanks: flags.realRanks,
    duration,
    warmUp: flags.warmUp ?? Math.round(duration / 10),
    collectiveTimeout: Math.round(flags.collectiveTimeout * 1e6),
    seed: flags.seed,
    costs: costsOf(flags),
    faults: flags.fault,
  };
}

/** The fewest nodes of 8 ranks that share the engines alike. */
function nodesOf(numRanks: number, numEngines: number): number {
  let nodes = Math.min(numEngines, Math.ceil(numRanks / RANKS_OF_NODE));
  while (numEngines % nodes !== 0) nodes += 1;
  return nodes;
}

function costsOf({ costs: file, stepTime }: ClusterFlags): ClusterCosts {
  const costs = file === undefined ? DEFAULT_COSTS : parseCosts(readText(file), file);
  if (stepTime === undefined) return costs;
  return { ...costs, pass: { ...costs.pass, fixedUs: stepTime.stepMs * 1e3, perTokenUs: stepTime.perTokenUs } };
}

/** Throws BAD_FILE. */
export function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', file, (error as Error).message);
  }
}
