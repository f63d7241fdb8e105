/** The flags of commands that serve one engine, and the engine that they ask for. */

import { Option, type Command } from 'commander';
import { designNames } from '../../capture/designs.ts';
import { DEFAULT_PREFIX_ROWS, prefixRowsByName, prefixRowsNames } from '../../capture/deltas/prefix-rows.ts';
import type {
  DesignReference,
  DeviceKind,
  EngineConfig,
  PrefixRows,
  RouterKernels,
  RowsLayers,
  SchedulingPolicy,
} from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { engineConfig } from '../../host/engine-options.ts';
import { checkOffload, NO_OFFLOAD, type KvOffloadOptions } from '../../host/kv-tier/offload-options.ts';
import { pipelineSettings } from '../../host/pipeline-options.ts';
import { DEFAULT_CLOCK_TIMES, parseStepTime, type StepTime } from '../../kernels/device/clock/clock-times.ts';
import { DRAFT_ACCEPTANCE_RATE } from '../../kernels/model/kernel-shape.ts';
import { MODEL_NAMES, modelPreset } from '../../kernels/model/model-presets.ts';
import type { KvEngineOptions } from '../../serve/kv/kv-engine.ts';
import type { KvExchangeOptions } from '../../serve/kv/kv-exchange.ts';
import type { KvRole, PdRows } from '../../serve/kv/transfer-params.ts';
import { kvRoles, pdRowsWays } from '../../serve/kv/transfer-params.ts';
import { designReference } from '../../worker/design-module.ts';
import { requireRows } from '../../worker/router-kinds.ts';
import { DEFAULT_STEP_TIMEOUT_MS } from '../../worker/thread/thread-executor.ts';
import {
  checkDraftFlags,
  finite,
  list,
  OFFLOAD_FLAGS,
  pipelineOf,
  pipelineParallelOption,
  pipelineSplitOption,
  routerKernelsOption,
  rowsLayersOption,
  whole,
} from '../options.ts';
import { routerConfig } from '../router-flags.ts';

/** One of the smaller published models: on a software adapter a token of a large one takes its time. */
const SERVED_MODEL = 'gpt-oss-20b';

export type EngineFlags = {
  model: string;
  design: DesignReference;
  device: DeviceKind;
  stepTime?: StepTime;
  adapter?: string;
  maxModelLen: number;
  maxNumSeqs: number;
  maxNumBatchedTokens: number;
  blockSize: number;
  numBlocks?: number;
  policy: SchedulingPolicy;
  prefixCaching: boolean;
  prefixRows: PrefixRows;
  kvOffloadBlocks: number;
  kvOffloadDir?: string;
  kvOffloadDirBlocks: number;
  weightVersion: string;
  rowsLayers: RowsLayers;
  ranks: number;
  queueDepth?: number;
  pipelineParallel?: number;
  pipelineSplit?: number[];
  ballastMs: number;
  router: 'modular' | 'monolithic';
  routingReplay: boolean;
  routerKernels: RouterKernels;
  numSpeculativeTokens: number;
  draftAcceptanceRate: number;
  maxRestarts: number;
  stepTimeout: number;
  epoch: number;
  role?: KvRole;
  pdRows: PdRows;
  kvPort?: number;
  kvHost: string;
  kvLease: number;
  kvLoadTimeout: number;
  kvLoadFailure: 'recompute' | 'fail';
  kvPeer: string[];
};

/** Adds the flags to a command. `design` and `rowsLayers` are taken unless the caller names others. */
export function addEngineFlags(
  command: Command,
  { design, rowsLayers }: Readonly<{ design: DesignReference; rowsLayers: RowsLayers }>,
): Command {
  return command
    .option('--model <name>', `model shape: ${MODEL_NAMES.join(', ')}`, SERVED_MODEL)
    .option(
      '--design <name>',
      `how rows get from the workers to the server: ${designNames.join(', ')}, or a module: ./mine.ts`,
      designReference,
      design,
    )
    .addOption(
      new Option('--device <kind>', 'webgpu; TypeScript kernels as fast as they are (cpu), or at a GPU’s pace (clock)')
        .choices(['webgpu', 'clock', 'cpu'])
        .default('webgpu'),
    )
    .option('--adapter <name>', 'part of the name of the WebGPU adapter to use (see "devices")')
    .option('--step-time <time>', 'what a step takes on the clock, as "7.6 ms + 60 us per token"', parseStepTime)
    .option('--max-model-len <n>', 'prompt and output together, in tokens', whole(2, 2 ** 20), 32_768)
    .option('--max-num-seqs <n>', 'requests running at once', whole(1, 65_535), 128)
    .option('--max-num-batched-tokens <n>', 'token budget of a step', whole(1, 2 ** 24), 2048)
    .option('--block-size <n>', 'tokens per KV block', whole(1, 65_536), 16)
    .option('--num-blocks <n>', 'KV blocks (default: four of the longest requests)', whole(2, 2 ** 24))
    .addOption(new Option('--policy <name>', 'scheduling policy').choices(['fcfs', 'priority']).default('fcfs'))
    .option('--no-prefix-caching', 'do not reuse the KV of equal prefixes')
    .option(
      '--prefix-rows <policy>',
      `rows of prefix-cached tokens under deltas: ${prefixRowsNames.join(', ')}`,
      prefixRowsByName,
      DEFAULT_PREFIX_ROWS,
    )
    .option(
      '--kv-offload-blocks <n>',
      'KV blocks kept in host memory, once the pool gives them up',
      whole(0, 2 ** 24),
      0,
    )
    .option('--kv-offload-dir <dir>', 'keep such blocks in files, too: they outlive the server')
    .option('--kv-offload-dir-blocks <n>', 'the most of these files', whole(1, 2 ** 24), NO_OFFLOAD.dirBlocks)
    .option('--weight-version <name>', 'names the weights: blocks in files of other weights are of no use', '')
    .addOption(rowsLayersOption(rowsLayers))
    .option('--ranks <n>', 'worker threads, each running every step', whole(1, 16), 1)
    .addOption(pipelineParallelOption())
    .addOption(pipelineSplitOption())
    .option('--queue-depth <n>', 'steps in flight (default: 2, or one for each stage)', whole(1, 16))
    .addOption(
      new Option('--router <kind>', 'modular, or gate, selection and expert work in one kernel')
        .choices(['modular', 'monolithic'])
        .default('modular'),
    )
    .option('--no-routing-replay', 'without routing_replay_out: a monolithic router then writes no rows at all')
    .addOption(routerKernelsOption())
    .option('--ballast-ms <ms>', 'stretch each forward pass on the device', finite(0, 60_000), 0)
    .option('--num-speculative-tokens <n>', 'draft tokens per request and step', whole(0, 64), 0)
    .option(
      '--draft-acceptance-rate <x>',
      'how likely a draft is right (with --num-speculative-tokens)',
      finite(0, 1),
      DRAFT_ACCEPTANCE_RATE,
    )
    .option('--max-restarts <n>', 'how often lost workers are started again', whole(0, 1000), 3)
    .option(
      '--step-timeout <s>',
      'a worker that does not reply for this long is lost; 0 = wait for ever',
      finite(0, 86_400),
      DEFAULT_STEP_TIMEOUT_MS / 1e3,
    )
    .option(
      '--epoch <n>',
      'for debugging: folded into every key computed here, so that rows tell whose they are; 0 = none',
      whole(0, 2 ** 32 - 1),
      0,
    )
    .addOption(
      new Option(
        '--role <role>',
        'share KV with other servers: keep it for those that decode, fetch it from those that prefill ' +
          '(default: both with --kv-port, else none)',
      ).choices(kvRoles),
    )
    .addOption(
      new Option(
        '--pd-rows <way>',
        'rows of a prompt prefilled elsewhere: with its KV; in kv_transfer_params; or put in by the proxy',
      )
        .choices(pdRowsWays)
        .default('with-kv'),
    )
    .option(
      '--kv-port <n>',
      'hand out KV over ZeroMQ on this port; 0 = any free one (default: 0 with --role)',
      whole(0, 65_535),
    )
    .option('--kv-host <address>', 'address of that port; anything but loopback lets others in', '127.0.0.1')
    .option('--kv-lease <s>', 'how long blocks are kept for another engine to fetch them', finite(0.01, 86_400), 30)
    .option('--kv-load-timeout <s>', 'how long fetching KV may take', finite(0.01, 3600), 10)
    .addOption(
      new Option('--kv-load-failure <policy>', 'what becomes of a request whose KV does not come')
        .choices(['recompute', 'fail'])
        .default('recompute'),
    )
    .option(
      '--kv-peer <hosts>',
      'hosts that KV may be fetched from, beside loopback',
      list((host) => host),
      [],
    );
}

/** Throws BAD_VALUE for flags that contradict each other, and for those that would be ignored. */
export function checkEngineFlags(flags: EngineFlags, command: Command): void {
  checkDraftFlags(flags, command);
  checkKvFlags(flags, command);
  checkOffloadFlags(flags);
  checkDesign(flags, command);
  if (flags.stepTime !== undefined && flags.device !== 'clock') {
    throw RoutedExpertsError.of('BAD_VALUE', '--device', flags.device, 'clock, or leave out --step-time');
  }
}

/** What the flags ask for. */
export function engineOfFlags(flags: EngineFlags): KvEngineOptions {
  const model = modelPreset(flags.model);
  const { scheduling, ...pipeline } = pipelineSettings(model, pipelineOf(flags));
  if (pipeline.pipelineSplit !== undefined && (flags.kvPort !== undefined || flags.role !== undefined)) {
    const wanted = '1 with --role and --kv-port: the KV of a stage is not handed to other servers';
    throw RoutedExpertsError.of('BAD_VALUE', '--pipeline-parallel', pipeline.pipelineSplit.length, wanted);
  }
  const engine = toEngineConfig(flags, scheduling);
  return {
    design: flags.design,
    model,
    engine,
    kvOffload: toOffload(flags, engine),
    device: flags.device,
    adapter: flags.adapter ?? null,
    ...(flags.stepTime === undefined ? {} : { clockTimes: { ...DEFAULT_CLOCK_TIMES, ...flags.stepTime } }),
    ...pipeline,
    ballastMs: flags.ballastMs,
    router: routerConfig(flags),
    prefixRows: flags.prefixRows,
    rowsLayers: flags.rowsLayers,
    draftAcceptanceRate: flags.draftAcceptanceRate,
    maxRestarts: flags.maxRestarts,
    stepTimeoutMs: flags.stepTimeout * 1e3,
    epoch: flags.epoch,
    kv: toKvOptions(flags),
    fault: null,
  };
}

/** Flags that say how KV is shared, without one that says that it is, would be ignored. */
function checkKvFlags({ role, kvPort }: EngineFlags, command: Command): void {
  if (role !== undefined || kvPort !== undefined) return;
  for (const name of ['pdRows', 'kvHost', 'kvLease', 'kvLoadTimeout', 'kvLoadFailure', 'kvPeer']) {
    if (command.getOptionValueSource(name) !== 'cli') continue;
    const { long } = command.options.find((option) => option.attributeName() === name)!;
    throw RoutedExpertsError.of('BAD_VALUE', 'role', 'not given', `--role too, or leave out ${long}`);
  }
}

function checkOffloadFlags({ kvOffloadBlocks, role, kvPort }: EngineFlags): void {
  if (kvOffloadBlocks === 0 || (role === undefined && kvPort === undefined)) return;
  const wanted = '0 with --role or --kv-port: a server that shares KV with others keeps none of its own';
  throw RoutedExpertsError.of('BAD_VALUE', OFFLOAD_FLAGS.hostBlocks, kvOffloadBlocks, wanted);
}

function checkDesign(flags: EngineFlags, command: Command): void {
  const { design, prefixRows } = flags;
  requireRows(routerConfig(flags), design);
  if (design === 'deltas' || command.getOptionValueSource('prefixRows') !== 'cli') return;
  const wanted = 'it with --design deltas only: the other designs have no policy';
  throw RoutedExpertsError.of('BAD_VALUE', '--prefix-rows', prefixRows, wanted);
}

function toOffload(flags: EngineFlags, engine: EngineConfig): KvOffloadOptions {
  const offload: KvOffloadOptions = {
    hostBlocks: flags.kvOffloadBlocks,
    dir: flags.kvOffloadDir ?? null,
    dirBlocks: flags.kvOffloadDirBlocks,
    weightVersion: flags.weightVersion,
  };
  checkOffload(offload, engine, OFFLOAD_FLAGS);
  return offload;
}

function toKvOptions(flags: EngineFlags): KvExchangeOptions | null {
  if (flags.kvPort === undefined && flags.role === undefined) return null;
  // It goes to others as the address to fetch from.
  if (['0.0.0.0', '::'].includes(flags.kvHost)) {
    throw RoutedExpertsError.of('BAD_VALUE', 'kv-host', flags.kvHost, 'the address by which others reach this machine');
  }
  return {
    role: flags.role ?? 'both',
    rows: flags.pdRows,
    host: flags.kvHost,
    port: flags.kvPort ?? 0,
    leaseMs: flags.kvLease * 1e3,
    loadMs: flags.kvLoadTimeout * 1e3,
    onLoadFailure: flags.kvLoadFailure,
    peers: flags.kvPeer,
  };
}

function toEngineConfig(flags: EngineFlags, scheduling: Partial<EngineConfig>): EngineConfig {
  const { numBlocks } = flags;
  const given = {
    ...scheduling,
    blockSize: flags.blockSize,
    ...(numBlocks === undefined ? {} : { numBlocks }),
    maxNumSeqs: flags.maxNumSeqs,
    maxNumBatchedTokens: flags.maxNumBatchedTokens,
    maxModelLen: flags.maxModelLen,
    policy: flags.policy,
    enablePrefixCaching: flags.prefixCaching,
    numSpeculativeTokens: flags.numSpeculativeTokens,
  };
  const names = { numBlocks: '--num-blocks', maxModelLen: '--max-model-len' };
  return engineConfig(given, names);
}
