/** Modular and monolithic routers: which kernels they are, and what cannot be captured from them. */

import type { RouterConfig, RouterKernels, WorkerConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { KernelSetFactory } from '../kernels/model/kernel-set.ts';
import { replayKernels } from '../kernels/model/replay/replay-kernels.ts';
import { wgslKernels, wgslKernelsFor } from '../kernels/model/wgsl-kernels.ts';

/** The flags `--router`, `--no-routing-replay` and `--router-kernels`. */
export type RouterFlags = Readonly<{
  router: RouterConfig['kind'];
  routingReplay: boolean;
  routerKernels: RouterKernels;
}>;

/**
 * What the flags ask for. Throws BAD_VALUE for a modular router without routing replay, which it has no use for, and for
 * a monolithic router in two kernels.
 */
export function routerConfig({ router, routingReplay, routerKernels }: RouterFlags): RouterConfig {
  if (router === 'monolithic') {
    if (routerKernels !== 'gated') return { kind: router, hasRoutingReplay: routingReplay };
    const wanted = 'auto or fused with --router monolithic, which is one kernel';
    throw RoutedExpertsError.of('BAD_VALUE', '--router-kernels', routerKernels, wanted);
  }
  if (routingReplay) return { kind: router, kernels: routerKernels };
  throw RoutedExpertsError.of('BAD_VALUE', '--router', router, 'monolithic with --no-routing-replay');
}

/**
 * Whether a design can have rows of that router: a monolithic one without `routing_replay_out` writes none, and zeros
 * must not stand in for them (L4). Throws ROUTING_NOT_CAPTURED.
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
