/** The kernels of modular and monolithic routers, and what cannot be captured from them. */

import type { RouterConfig, WorkerConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { KernelSetFactory } from '../kernels/model/kernel-set.ts';
import { replayKernels } from '../kernels/model/replay/replay-kernels.ts';
import { wgslKernels, wgslKernelsFor } from '../kernels/model/wgsl-kernels.ts';

/**
 * Throws ROUTING_NOT_CAPTURED for a design that wants rows of a monolithic router without `routing_replay_out`: it
 * writes none, and zeros must not stand in for them (L4).
 */
export function requireRows(router: RouterConfig | undefined, design: string): void {
  if (design === 'off' || router?.kind !== 'monolithic' || router.hasRoutingReplay) return;
  throw RoutedExpertsError.of('ROUTING_NOT_CAPTURED', design);
}

/** Throws BAD_VALUE for a recording with a router of its own: a recording's rows stand in for a router's. */
export function kernelsOf({ routing, router }: Pick<WorkerConfig, 'routing' | 'router'>): KernelSetFactory {
  if (routing?.kind !== 'replay') return router === undefined ? wgslKernels : wgslKernelsFor(router);
  if (router?.kind === 'monolithic') {
    throw RoutedExpertsError.of('BAD_VALUE', 'router', router.kind, 'modular: a recording is replayed by its router');
  }
  const chosen = router?.kernels ?? 'auto';
  if (chosen === 'auto') return replayKernels(routing.recording);
  throw RoutedExpertsError.of('BAD_VALUE', 'router kernels', chosen, 'auto: a recording is replayed without a router');
}
