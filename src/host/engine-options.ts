/** What an engine of the library is made from, with the defaults of what is left out. */

import type {
  DesignReference,
  ClockTimes,
  DeviceKind,
  EngineConfig,
  ModelConfig,
  PrefixRows,
  RouterKernels,
  RowsLayers,
} from '../contract/config.ts';
import { prefixRowsByName } from '../capture/deltas/prefix-rows.ts';
import { rowsLayersNames } from '../capture/row-layers.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { validateEngineConfig } from '../engine/engine-config.ts';
import { DEFAULT_CLOCK_TIMES } from '../kernels/device/clock/clock-times.ts';
import { modelPreset } from '../kernels/model/model-presets.ts';
import { ROUTER_KERNELS } from '../kernels/model/route/engine-router.ts';
import { designReference } from '../worker/design-module.ts';
import { pipelineSettings, type PipelineOptions } from './pipeline-options.ts';
import type { SessionConfig } from './design-session.ts';
import { checkOffload, NO_OFFLOAD, type KvOffloadOptions, type OffloadNames } from './kv-tier/offload-options.ts';
import { requireNames, requireOneOf, requireText } from './option-checks.ts';

/** A timer of Node waits no longer, in ms. */
const MOST_TIMER_MS = 2 ** 31 - 1;

/** What an engine is made from; only `model` is needed. */
export type EngineOptions = Readonly<{
  /** The name of a published model's shape (`MODEL_NAMES`), or a shape of the caller's own. */
  model: string | ModelConfig;
  /**
   * `webgpu` (default): the best adapter there is; `cpu`: the TypeScript kernels, as fast as they are; `clock`: the
   * same kernels, and steps that take as long as a GPU's (`clockTimes`).
   */
  device?: DeviceKind;
  /** Part of the name of the WebGPU adapter to use. */
  adapter?: string;
  /** What each thing takes on the device `clock`; default: near gpt-oss-120b on one H100. */
  clockTimes?: Partial<ClockTimes>;
  /**
   * Route in one kernel (`fused`), or in a gate and a router kernel behind it (`gated`); default `auto`, the faster way
   * as far as it was measured. Rows are the same.
   */
  routerKernels?: RouterKernels;
  /**
   * How rows leave the device: the name of a built-in design, or the path (relative to the working directory) or
   * `file:` URL of a module that exports one; default `deltas`.
   */
  design?: string | URL;
  /** Rows of prefix-cached tokens under `deltas`; default `complete`. */
  prefixRows?: PrefixRows;
  /**
   * Where KV blocks go that the prefix cache gives up: `hostBlocks` of them to host memory, and with `dir` to files
   * that outlive the engine (`dirBlocks`, `weightVersion`). Default: they are gone.
   */
  kvOffload?: Partial<KvOffloadOptions>;
  /**
   * The layers that rows count: those that have a router (`routers`, default), or `all` of the model's, dense ones as
   * zeros. `rows.layers` says which have a router.
   */
  rowsLayers?: RowsLayers;
  /** Worker threads, each of which runs every step; default 1. */
  numRanks?: number;
  /**
   * Stages that the model's layers are split into, in a row; default 1. Ranks are shared out to them: by default each
   * has one. For the designs `deltas` and `off`.
   */
  pipelineParallel?: number;
  /** Layers of each stage, dense ones included; default: as even as can be, vLLM's way. */
  pipelineSplit?: readonly number[];
  /** Steps in flight; default 2, or one for each stage. With 1 the engine schedules synchronously. */
  queueDepth?: number;
  /** How often lost workers are started again; default 3. */
  maxRestarts?: number;
  /** A worker that does not reply for this long is lost, in ms; 0 = never. */
  stepTimeoutMs?: number;
  /** Milliseconds by which the device stretches each forward pass; default 0. */
  ballastMs?: number;
  /** Sizes and policies of the scheduler, in tokens unless `EngineConfig` says otherwise. */
  engine?: Partial<EngineConfig>;
}>;

export type EngineSettings = Readonly<{
  design: DesignReference;
  session: SessionConfig;
  maxRestarts: number;
}>;

const OPTIONS: Readonly<Record<keyof EngineOptions, true>> = {
  model: true,
  device: true,
  adapter: true,
  clockTimes: true,
  routerKernels: true,
  design: true,
  prefixRows: true,
  kvOffload: true,
  rowsLayers: true,
  numRanks: true,
  pipelineParallel: true,
  pipelineSplit: true,
  queueDepth: true,
  maxRestarts: true,
  stepTimeoutMs: true,
  ballastMs: true,
  engine: true,
};

/** Throws UNKNOWN_NAME for an option, model or design that there is not, and BAD_VALUE for a value out of its range. */
export function engineSettings(options: EngineOptions): EngineSettings {
  requireNames('createEngine', options, Object.keys(OPTIONS));
  const { design = 'deltas', device = 'webgpu', maxRestarts = 3 } = options;
  const model = modelOf(options.model);
  const { scheduling, ...pipeline } = pipelineSettings(model, checkedPipeline(options));
  if (!((design as unknown) instanceof URL)) requireText('design', design);
  if (options.adapter !== undefined) requireText('adapter', options.adapter);
  requireOneOf('device', device, ['webgpu', 'clock', 'cpu']);
  requireWhole('maxRestarts', maxRestarts, 0, 1000);
  const { stepTimeoutMs, prefixRows, kvOffload, rowsLayers = 'routers', routerKernels = 'auto' } = options;
  requireOneOf('rowsLayers', rowsLayers, rowsLayersNames);
  if (stepTimeoutMs !== undefined) requireWhole('stepTimeoutMs', stepTimeoutMs, 0, MOST_TIMER_MS);
  if (!ROUTER_KERNELS.includes(routerKernels))
    throw RoutedExpertsError.of('UNKNOWN_NAME', 'routerKernels', routerKernels, ROUTER_KERNELS);
  const engine = engineConfig({ ...scheduling, ...options.engine });
  return {
    design: designReference(design),
    maxRestarts,
    session: {
      model,
      engine,
      device,
      adapter: options.adapter ?? null,
      ...(options.clockTimes === undefined ? {} : { clockTimes: clockTimesOf(options.clockTimes, device) }),
      ...pipeline,
      ballastMs: options.ballastMs ?? 0,
      fault: null,
      rowsLayers,
      router: { kind: 'modular', kernels: routerKernels },
      ...(stepTimeoutMs === undefined ? {} : { stepTimeoutMs }),
      ...(kvOffload === undefined ? {} : { kvOffload: offloadOf(kvOffload, engine) }),
      ...(prefixRows === undefined ? {} : { prefixRows: prefixRowsByName(prefixRows) }),
    },
  };
}

/** Throws BAD_VALUE for a number that cannot be, whatever the model. */
function checkedPipeline({ pipelineParallel, pipelineSplit, numRanks, queueDepth }: EngineOptions): PipelineOptions {
  const whole = { queueDepth, numRanks, pipelineParallel };
  for (const [name, value] of Object.entries(whole)) if (value !== undefined) requireWhole(name, value, 1, 16);
  if (pipelineSplit !== undefined && !Array.isArray(pipelineSplit))
    throw RoutedExpertsError.of(
      'BAD_VALUE',
      '--pipeline-split (pipelineSplit)',
      pipelineSplit,
      'a list of the layers of each stage',
    );
  return { ...whole, pipelineSplit };
}

const OFFLOAD_NAMES: OffloadNames = {
  hostBlocks: 'kvOffload.hostBlocks',
  dir: 'kvOffload.dir',
  prefixCaching: 'engine.enablePrefixCaching',
};

function offloadOf(given: Partial<KvOffloadOptions>, engine: EngineConfig): KvOffloadOptions {
  requireNames('kvOffload', given, Object.keys(NO_OFFLOAD));
  const offload = { ...NO_OFFLOAD, ...given };
  requireWhole('kvOffload.hostBlocks', offload.hostBlocks, 0, 2 ** 24);
  requireWhole('kvOffload.dirBlocks', offload.dirBlocks, 1, 2 ** 24);
  requireText('kvOffload.weightVersion', offload.weightVersion);
  if (offload.dir !== null) requireText('kvOffload.dir', offload.dir);
  checkOffload(offload, engine, OFFLOAD_NAMES);
  return offload;
}

function modelOf(model: EngineOptions['model']): ModelConfig {
  if (typeof model === 'string') return modelPreset(model);
  if (typeof model === 'object' && (model as unknown) !== null) return model;
  throw RoutedExpertsError.of('BAD_VALUE', 'model', model, 'the name of a preset (MODEL_NAMES) or a shape');
}

function clockTimesOf(given: Partial<ClockTimes>, device: DeviceKind): ClockTimes {
  requireNames('clockTimes', given, Object.keys(DEFAULT_CLOCK_TIMES));
  if (device !== 'clock')
    throw RoutedExpertsError.of('BAD_VALUE', 'device', device, "'clock', or leave out clockTimes");
  for (const [name, value] of Object.entries(given)) {
    if (Number.isFinite(value) && value >= 0 && (value > 0 || name !== 'copyGBPerS')) continue;
    throw RoutedExpertsError.of('BAD_VALUE', `clockTimes.${name}`, value, 'a number ≥ 0 (copyGBPerS: > 0)');
  }
  return { ...DEFAULT_CLOCK_TIMES, ...given };
}

/** What the caller calls these fields, for messages. */
type Names = Readonly<Record<'numBlocks' | 'maxModelLen', string>>;

/**
 * A scheduler's configuration, with defaults where the caller gives nothing: room for four of the longest requests.
 * Throws BAD_VALUE for the first value out of its range, and for a pool that cannot hold one request.
 */
export function engineConfig(
  given: Partial<EngineConfig>,
  names: Names = { numBlocks: 'numBlocks', maxModelLen: 'maxModelLen' },
): EngineConfig {
  const { blockSize = 16, maxModelLen = 4096 } = given;
  const defaults: EngineConfig = {
    blockSize,
    numBlocks: 1 + 4 * Math.ceil(maxModelLen / blockSize),
    maxNumSeqs: 128,
    maxNumBatchedTokens: 2048,
    maxModelLen,
    policy: 'fcfs',
    asyncScheduling: true,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: true,
    watermark: 0,
    numSpeculativeTokens: 0,
  };
  requireNames('engine', given, [...Object.keys(defaults), 'pipelineParallelSize']);
  const engine: EngineConfig = { ...defaults, ...given };
  validateEngineConfig(engine);
  requireRoomForOne(engine, names);
  return engine;
}

/** As in vLLM, one request of the longest kind must fit the pool. Throws BAD_VALUE. */
function requireRoomForOne({ numBlocks, maxModelLen, blockSize }: EngineConfig, names: Names): void {
  const needed = 1 + Math.ceil(maxModelLen / blockSize);
  if (numBlocks >= needed) return;
  const fitting = `so that a request of ${names.maxModelLen} ${maxModelLen} fits`;
  const wanted = `at least ${needed}, ${fitting}, or a smaller ${names.maxModelLen}`;
  throw RoutedExpertsError.of('BAD_VALUE', names.numBlocks, numBlocks, wanted);
}

function requireWhole(name: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw RoutedExpertsError.of('BAD_VALUE', name, value, `a whole number in [${least}, ${most}]`);
}
