/** From the flags of a bench to its options; what it runs on is looked for on the way. */

import { prepareAdapters } from '../../../kernels/device/open-device.ts';
import type { LoopMode } from '../../../workload/arrivals.ts';
import { recordingWorkload } from '../../../workload/traces/recording.ts';
import { requireRows } from '../../../worker/router-kinds.ts';
import { routerConfig } from '../../router-flags.ts';
import { benchDevice } from '../bench-device.ts';
import type { BenchOptions } from '../bench-options.ts';
import { DEFAULTS, endingOf, faultOf, makeEngineConfig, makeWorkload, type Flags } from '../settings.ts';
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
  const defaults = DEFAULTS[device.pace];
  const maxNumBatchedTokens = flags.maxNumBatchedTokens ?? defaults.maxNumBatchedTokens;
  const workload =
    recording === null ? makeWorkload(flags, defaults, model, maxNumBatchedTokens) : recordingWorkload(recording);
  const concurrency = Math.max(
    flags.concurrency ?? defaults.concurrency,
    flags.concurrency ? 1 : workload.minConcurrency,
  );
  const mode: LoopMode = flags.openLoop ? { kind: 'open' } : { kind: 'closed', concurrency };
  const engine = makeEngineConfig(flags, workload, mode, maxNumBatchedTokens);
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
    session: {
      numRanks: flags.ranks,
      model,
      engine,
      device: device.kind,
      adapter: device.adapter,
      ...(device.clockTimes === null ? {} : { clockTimes: device.clockTimes }),
      queueDepth: flags.queueDepth,
      ballastMs: flags.ballastMs ?? defaults.ballastMs,
      fault: faultOf(flags),
      stepTimeoutMs: flags.stepTimeout * 1e3,
      prefixRows: flags.prefixRows,
      draftAcceptanceRate: flags.draftAcceptanceRate,
      router,
      ...(recording === null ? {} : { routing: { kind: 'replay', recording } as const }),
    },
  };
}
