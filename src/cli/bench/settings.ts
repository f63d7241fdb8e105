/**
 * What a bench runs with: the flags, and what follows from them and from the device where they leave something open.
 */

import type {
  DesignReference,
  Dispatch,
  EngineConfig,
  ModelConfig,
  PrefixRows,
  RouterKernels,
  RowsLayers,
  WorkerFault,
} from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { validateEngineConfig } from '../../engine/engine-config.ts';
import type { PipelineSettings } from '../../host/pipeline-options.ts';
import type { LoopMode } from '../../workload/arrivals.ts';
import { readTrace } from '../../workload/traces/read-trace.ts';
import type { Workload } from '../../workload/workload.ts';
import { workloadTotals } from '../../workload/workload.ts';
import { findWorkload } from '../../workload/workloads.ts';
import type { LayersXK } from './flags/model-flags.ts';
import type { DeviceFlags } from './bench-device.ts';
import type { Ending } from './pair-schedule.ts';
import type { Sweep } from './flags/sweep.ts';

/**
 * What is not asked for is sized to the device: a GPU gets a large model's decode step and vLLM's token budget; a
 * software adapter, where ballast burns a core and a token costs a tenth of a millisecond, gets steps that two cores do
 * in a few milliseconds; the clock gets steps whose answers one core computes in less than the time of the step.
 */
export const DEFAULTS = {
  gpu: {
    ballastMs: 10,
    maxNumBatchedTokens: 2048,
    concurrency: 64,
    chat: { requests: 64, lengthScale: 2 },
    halfWidth: 0.01,
    timeBudgetS: 900,
    clockWarmUpMs: 3000,
  },
  clock: {
    ballastMs: 0,
    maxNumBatchedTokens: 128,
    concurrency: 16,
    chat: { requests: 32, lengthScale: 0.6 },
    halfWidth: 0.02,
    timeBudgetS: 110,
    clockWarmUpMs: 0,
  },
  software: {
    ballastMs: 2,
    maxNumBatchedTokens: 256,
    concurrency: 16,
    chat: { requests: 48, lengthScale: 1 },
    halfWidth: 0.02,
    timeBudgetS: 110,
    clockWarmUpMs: 0,
  },
} as const;

const OPEN_LOOP_REPEATS = 5;
const TRACE_REPEATS = 1;

export type Defaults = (typeof DEFAULTS)[keyof typeof DEFAULTS];

export type Flags = DeviceFlags & {
  design: DesignReference[];
  optIn: number[];
  repeats?: number;
  timeBudget?: number;
  model: string;
  workload: string;
  trace?: string;
  requests?: number;
  scaleLengths: number;
  lengthScale?: number;
  speedup: number;
  concurrency?: number;
  openLoop?: boolean;
  abortShare: number;
  gateWidth: number;
  queueDepth?: number;
  pipelineParallel?: number;
  pipelineSplit?: number[];
  ranks: number;
  lockstep?: boolean;
  collectiveTimeout?: number;
  shmSave: boolean;
  shmRead: boolean;
  experiments?: boolean;
  dataParallel: number;
  dispatch: Dispatch;
  gpus?: number[];
  blockSize: number;
  numBlocks?: number;
  kvOffloadBlocks: number;
  maxNumSeqs?: number;
  maxNumBatchedTokens?: number;
  maxModelLen?: number;
  policy: 'fcfs' | 'priority';
  prefixCaching: boolean;
  prefixRows: PrefixRows;
  rowsLayers: RowsLayers;
  routing: 'deterministic' | 'replay';
  recording?: string;
  router: 'modular' | 'monolithic';
  routingReplay: boolean;
  routerKernels: RouterKernels;
  numSpeculativeTokens: number;
  draftAcceptanceRate: number;
  loseDeviceAt?: number;
  killWorkerAt?: number;
  hangWorkerAt?: number;
  faultRank: number;
  stepTimeout: number;
  seed: number;
  json?: string;
  csv?: string;
  promptLength?: number;
  layersXK?: LayersXK;
  sweep?: Sweep;
};

/**
 * A bench goes on until its ratios are known; but a trace takes long, and in an open loop the arrivals set the rate of
 * every design that keeps up, so that there is no ratio to know.
 */
export function endingOf(
  { repeats, timeBudget, trace, openLoop }: Pick<Flags, 'repeats' | 'timeBudget' | 'trace' | 'openLoop'>,
  defaults: Defaults,
): Ending {
  const fallback = trace !== undefined ? TRACE_REPEATS : openLoop ? OPEN_LOOP_REPEATS : undefined;
  const wanted = repeats ?? (timeBudget === undefined ? fallback : undefined);
  if (wanted !== undefined) return { kind: 'repeats', repeats: wanted };
  const budgetMs = (timeBudget ?? defaults.timeBudgetS) * 1e3;
  return { kind: 'half-width', halfWidth: defaults.halfWidth, budgetMs, isBudgetGiven: timeBudget !== undefined };
}

export function makeWorkload(
  flags: Flags,
  defaults: Defaults,
  model: ModelConfig,
  maxNumBatchedTokens: number,
): Workload {
  const { seed, requests, promptLength } = flags;
  const { vocabSize } = model;
  if (promptLength !== undefined && (flags.trace !== undefined || flags.workload !== 'fixed')) {
    const wanted = 'none, or --workload fixed: the prompts of others have lengths of their own';
    throw RoutedExpertsError.of('BAD_VALUE', '--prompt-length', promptLength, wanted);
  }
  if (flags.trace !== undefined) {
    const { scaleLengths, speedup } = flags;
    return readTrace(flags.trace, { seed, vocabSize, requests, scaleLengths, speedup });
  }
  const sizes = { requests, lengthScale: flags.lengthScale };
  if (flags.workload === 'chat') {
    sizes.requests ??= defaults.chat.requests;
    sizes.lengthScale ??= defaults.chat.lengthScale;
  }
  const options = { seed, vocabSize, ...sizes, maxNumBatchedTokens, promptTokens: promptLength };
  return findWorkload(flags.workload).generate(options);
}

export function faultOf({ loseDeviceAt, killWorkerAt, hangWorkerAt, faultRank: rank }: Flags): WorkerFault | null {
  if (loseDeviceAt !== undefined) return { kind: 'lose-device', rank, stepId: loseDeviceAt };
  if (killWorkerAt !== undefined) return { kind: 'exit-thread', rank, stepId: killWorkerAt };
  return hangWorkerAt === undefined ? null : { kind: 'hang', rank, stepId: hangWorkerAt };
}

/** Fills in what the flags leave open, so that the workload fits without a preemption. */
export function makeEngineConfig(
  flags: Flags,
  workload: Workload,
  mode: LoopMode,
  { maxNumBatchedTokens, scheduling }: Pick<EngineConfig, 'maxNumBatchedTokens'> & Pick<PipelineSettings, 'scheduling'>,
): EngineConfig {
  const { blockSize, numSpeculativeTokens } = flags;
  const largest = workloadTotals(workload).largestRequestTokens;
  const maxNumSeqs = flags.maxNumSeqs ?? (mode.kind === 'closed' ? mode.concurrency : 256);
  const maxModelLen = flags.maxModelLen ?? largest + 1;
  // A step computes drafts, and has room for those of the step behind it.
  const blocksPerRequest = Math.ceil((largest + 2 * numSpeculativeTokens) / blockSize) + 1;
  const engine: EngineConfig = {
    blockSize,
    numBlocks: flags.numBlocks ?? 1 + blocksPerRequest * Math.min(maxNumSeqs, workload.requests.length),
    maxNumSeqs,
    maxNumBatchedTokens,
    maxModelLen,
    policy: flags.policy,
    ...scheduling,
    enablePrefixCaching: flags.prefixCaching,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: true,
    watermark: 0,
    numSpeculativeTokens,
  };
  validateEngineConfig(engine);
  return engine;
}
