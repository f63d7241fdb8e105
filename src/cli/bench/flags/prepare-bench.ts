/** From the flags of a bench to its options; what it runs on is looked for on the way. */

import type { EngineConfig } from '../../../contract/config.ts';
import type { SessionConfig } from '../../../host/design-session.ts';
import { checkOffload, NO_OFFLOAD } from '../../../host/kv-tier/offload-options.ts';
import { prepareAdapters } from '../../../kernels/device/open-device.ts';
import { gpusForRanks, type PciAddress } from '../../../kernels/device/host-gpus.ts';
import type { LoopMode } from '../../../workload/arrivals.ts';
import { recordingWorkload } from '../../../workload/traces/recording.ts';
import { requireRows } from '../../../worker/router-kinds.ts';
import { pipelineSettings } from '../../../host/pipeline-options.ts';
import { OFFLOAD_FLAGS, pipelineOf } from '../../options.ts';
import { routerConfig } from '../../router-flags.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import { benchDevice, type BenchDevice } from '../bench-device.ts';
import type { BenchOptions } from '../bench-options.ts';
import { DEFAULTS, endingOf, faultOf, makeEngineConfig, makeWorkload, type Flags } from '../settings.ts';
import { checkFaultRank, collectiveTimeoutOf, ranksPerEngine } from './lockstep-flags.ts';
import { modelOf } from './model-flags.ts';
import { loadDesigns } from './own-designs.ts';
import { recordingOf } from './recording-flags.ts';

/** Throws BAD_VALUE, UNKNOWN_NAME, BAD_FILE, BAD_DESIGN, ROUTING_NOT_CAPTURED for flags that no bench can follow. */
export async function prepareBench(flags: Flags): Promise<BenchOptions> {
  const recording = recordingOf(flags.routing, flags.recording);
  const router = routerConfig(flags);
  for (const design of flags.design) requireRows(router, design);
  const designs = await loadDesigns(flags.design);
  const model = modelOf(flags, recording);
  await prepareAdapters();
  const device = await benchDevice(flags);
  const gpus = gpusOf(flags.gpus, device);
  const defaults = DEFAULTS[device.pace];
  const maxNumBatchedTokens = flags.maxNumBatchedTokens ?? defaults.maxNumBatchedTokens;
  const workload =
    recording === null ? makeWorkload(flags, defaults, model, maxNumBatchedTokens) : recordingWorkload(recording);
  const concurrency = Math.max(
    flags.concurrency ?? defaults.concurrency,
    flags.concurrency ? 1 : workload.minConcurrency,
  );
  const mode: LoopMode = flags.openLoop ? { kind: 'open' } : { kind: 'closed', concurrency };
  const { scheduling, ...pipeline } = pipelineSettings(model, pipelineOf({ ...flags, ranks: ranksPerEngine(flags) }));
  const engine = makeEngineConfig(flags, workload, mode, { maxNumBatchedTokens, scheduling });
  const ballastMs = flags.ballastMs ?? defaults.ballastMs;
  const known = { clockTimes: device.clockTimes, ballastMs, maxNumBatchedTokens };
  const collectiveTimeoutMs = collectiveTimeoutOf(flags, known);
  checkFaultRank(flags.faultRank, Math.max(flags.ranks, pipeline.numRanks));
  return {
    ...designs,
    optInShares: flags.optIn,
    ending: endingOf(flags, defaults),
    clockWarmUpMs: defaults.clockWarmUpMs,
    checksShaders: device.checksShaders,
    seed: flags.seed,
    workload,
    mode,
    abortShare: flags.abortShare,
    dataParallel: { size: flags.dataParallel, dispatch: flags.dispatch },
    session: {
      ...pipeline,
      model,
      engine,
      device: device.kind,
      adapter: device.adapter,
      gpus,
      ...(device.clockTimes === null ? {} : { clockTimes: device.clockTimes }),
      ballastMs,
      fault: faultOf(flags),
      stepTimeoutMs: flags.stepTimeout * 1e3,
      ...(collectiveTimeoutMs === null ? {} : { collectiveTimeoutMs }),
      prefixRows: flags.prefixRows,
      ...offloadOf(flags, engine),
      rowsLayers: flags.rowsLayers,
      shmFlock: { save: flags.shmSave, read: flags.shmRead },
      draftAcceptanceRate: flags.draftAcceptanceRate,
      router,
      ...(recording === null ? {} : { routing: { kind: 'replay', recording } as const }),
    },
  };
}

/** Without files: a run must not find what another one left. */
function offloadOf({ kvOffloadBlocks }: Flags, engine: EngineConfig): Pick<SessionConfig, 'kvOffload'> {
  if (kvOffloadBlocks === 0) return {};
  const kvOffload = { ...NO_OFFLOAD, hostBlocks: kvOffloadBlocks };
  checkOffload(kvOffload, engine, OFFLOAD_FLAGS);
  return { kvOffload };
}

function gpusOf(wanted: readonly number[] | undefined, { kind, pace }: BenchDevice): readonly PciAddress[] {
  if (pace === 'gpu') return gpusForRanks(wanted ?? null);
  if (wanted === undefined) return [];
  throw RoutedExpertsError.of('BAD_VALUE', '--gpus', wanted.join(','), `none with device ${kind}, which is no GPU`);
}
