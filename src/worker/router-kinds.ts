/** Modular and monolithic routers: which kernels they are, and what cannot be captured from them. */

import type { RouterConfig, WorkerConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { KernelSetFactory } from '../kernels/model/kernel-set.ts';
import { replayKernels } from '../kernels/model/replay/replay-kernels.ts';
import { MODULAR } from '../kernels/model/route/engine-router.ts';
import { wgslKernels, wgslKernelsFor } from '../kernels/model/wgsl-kernels.ts';

/**
 * What the flags `--router` and `--no-routing-replay` ask for. Throws BAD_VALUE for a modular router without routing
 * replay: it has none.
 */
export function routerConfig(kind: RouterConfig['kind'], hasRoutingReplay: boolean): RouterConfig {
  if (kind === 'monolithic') return { kind, hasRoutingReplay };
  if (hasRoutingReplay) return MODULAR;
  throw RoutedExpertsError.of('BAD_VALUE', '--router', kind, 'monolithic with --no-routing-replay');
}

/**
 * Whether a design can have rows of that router: a monolithic one without `routing_replay_out` writes none, and zeros
 * must not stand in for them (L4). Throws ROUTING_NOT_CAPTURED.
 */
export function requireRows(router: RouterConfig | undefined, design: string): void {
  if (design === 'off' || router?.kind !== 'monolithic' || router.hasRoutingReplay) return;
  throw RoutedExpertsError.of('ROUTING_NOT_CAPTURED', design);
}

/** Throws BAD_VALUE for a monolithic router that replays a recording. */
export function kernelsOf({ routing, router }: Pick<WorkerConfig, 'routing' | 'router'>): KernelSetFactory {
  if (routing?.kind !== 'replay') return router === undefined ? wgslKernels : wgslKernelsFor(router);
  if (router?.kind === 'monolithic') {
    throw RoutedExpertsError.of('BAD_VALUE', 'router', router.kind, 'modular: a recording is replayed by its router');
  }
  return replayKernels(routing.recording);
}
