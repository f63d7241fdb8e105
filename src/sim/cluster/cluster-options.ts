/** A virtual cluster as data, and what one must be. */

import type { Dispatch, EngineConfig, ModelConfig } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { RankGrid } from '../../worker/pipeline/lockstep/rank-grid.ts';
import type { TestedDesign } from '../tested-design.ts';
import type { ClusterFault } from './cluster-fault.ts';
import type { ClusterCosts } from './costs.ts';

/** In tokens, both ends included. */
export type Lengths = Readonly<{ from: number; to: number }>;

/** Ranks that route a shard alone need one another's rows, and of most ranks here only the time is simulated. */
export type ClusterDispatch = Exclude<Dispatch, 'modular-shards'>;

/** Requests that were served for real, to be served again; request i goes to engine i modulo their number. */
export type ServedBefore = Readonly<{
  engine: EngineConfig;
  requests: readonly Readonly<{ prompt: readonly number[]; maxTokens: number }>[];
}>;

/** Times in µs of virtual time. */
export type ClusterOptions = Readonly<{
  model: ModelConfig;
  tested: TestedDesign;
  /** Data-parallel engines, and the tensor-parallel ranks of each. */
  numEngines: number;
  tensorParallel: number;
  /** Engines are spread over them alike. */
  numNodes: number;
  /** `null`: clients draw their requests, and send them as long as the run lasts. */
  served: ServedBefore | null;
  /** Requests in flight in each engine; a client whose request has ended waits for `gap`, and sends another. */
  concurrency: number;
  gap: number;
  optInShare: number;
  prompt: Lengths;
  output: Lengths;
  queueDepth: number;
  maxNumBatchedTokens: number;
  dispatch: ClusterDispatch;
  /** Whether the engines of a node take one lock, or each one of its own. */
  lock: 'engine' | 'node';
  /** Whether every rank runs its half and its device, or the first of each engine alone. */
  realRanks: 'first' | 'all';
  /** How long clients send requests. What is in flight then is aborted. */
  duration: number;
  /** Until then nothing is counted. */
  warmUp: number;
  collectiveTimeout: number;
  seed: number;
  costs: ClusterCosts;
  faults: readonly ClusterFault[];
}>;

export const MOST_RANKS = 8192;

/** Passes of ranks: each has two times that are kept. */
const MOST_RANK_PASSES = 40_000_000;

export function gridOf({ numEngines, tensorParallel }: ClusterOptions): RankGrid {
  return new RankGrid({ dataParallel: numEngines, pipelineParallel: 1, tensorParallel });
}

/** Of a pass over `numTokens`, without what is drawn. */
export function passUs({ pass }: ClusterCosts, numTokens: number): number {
  return pass.fixedUs + pass.perTokenUs * numTokens;
}

/** Throws BAD_VALUE for what cannot run, or would not mean what it says. */
export function checkCluster(options: ClusterOptions): void {
  const { numEngines, tensorParallel, numNodes, concurrency, dispatch, realRanks, faults } = options;
  const numRanks = numEngines * tensorParallel;
  if (numRanks > MOST_RANKS) {
    throw bad('--data-parallel × --tensor-parallel', numRanks, `at most ${MOST_RANKS} ranks together`);
  }
  if (numEngines % numNodes !== 0) {
    throw bad('--nodes', numNodes, `a number that divides the ${numEngines} engines: an engine's ranks share a node`);
  }
  if (numEngines === 1 && dispatch !== 'modular') {
    throw bad('--dispatch', dispatch, 'modular, or --data-parallel 2 or more');
  }
  if (dispatch !== 'modular' && numEngines > MOST_NAIVE_ENGINES) {
    const why = 'there every rank computes the rows of all engines';
    throw bad('--dispatch', dispatch, `modular with more than ${MOST_NAIVE_ENGINES} engines: ${why}`);
  }
  if (realRanks === 'all' && numRanks > MOST_REAL_RANKS) {
    throw bad('--real-ranks', 'all', `at most ${MOST_REAL_RANKS} ranks with it, here are ${numRanks}`);
  }
  const { costs, maxNumBatchedTokens, collectiveTimeout, duration } = options;
  if (maxNumBatchedTokens < concurrency) {
    throw bad('--max-num-batched-tokens', maxNumBatchedTokens, `at least ${concurrency}, a token for each request`);
  }
  const longest = passUs(costs, maxNumBatchedTokens);
  if (collectiveTimeout <= longest) {
    const step = `${(longest / 1e6).toFixed(3)} s, which a step of ${maxNumBatchedTokens} tokens takes`;
    throw bad('--collective-timeout', collectiveTimeout / 1e6, `more than ${step}`);
  }
  const shortest = passUs(costs, 1);
  if (options.served === null && numRanks * (duration / shortest) > MOST_RANK_PASSES) {
    const most = Math.floor((MOST_RANK_PASSES / numRanks) * (shortest / 1e6));
    throw bad('--duration', `${duration / 1e6}s`, `at most ${most}s with ${numRanks} ranks and such steps`);
  }
  for (const fault of faults) checkFault(fault, options);
}

function bad(name: string, value: unknown, wanted: string): RoutedExpertsError {
  return RoutedExpertsError.of('BAD_VALUE', name, value, wanted);
}

const MOST_NAIVE_ENGINES = 16;
const MOST_REAL_RANKS = 64;

function checkFault(
  fault: ClusterFault,
  { numEngines, tensorParallel, numNodes, tested, duration }: ClusterOptions,
): void {
  const numRanks = numEngines * tensorParallel;
  if ('rank' in fault && fault.rank >= numRanks) throw bad('--fault', fault.text, `a rank below ${numRanks}`);
  if ('node' in fault && fault.node >= numNodes) throw bad('--fault', fault.text, `a node below ${numNodes} (--nodes)`);
  if ('at' in fault && fault.at >= duration) {
    throw bad('--fault', fault.text, `a time before the end of --duration, ${duration / 1e6}s`);
  }
  if (fault.kind === 'held-lock' && tested.design.name !== 'shm-flock') {
    throw bad('--fault', fault.text, `--design shm-flock with it: ${tested.name} takes no lock`);
  }
  if (fault.kind === 'slow-nic' && numNodes === 1) {
    throw bad('--fault', fault.text, '--nodes 2 or more with it: within a node nothing goes over a NIC');
  }
}
