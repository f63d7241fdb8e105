/** The flags `--router`, `--no-routing-replay` and `--router-kernels`. */

import type { RouterConfig, RouterKernels } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';

export type RouterFlags = Readonly<{
  router: RouterConfig['kind'];
  routingReplay: boolean;
  routerKernels: RouterKernels;
}>;

/**
 * Returns what the flags ask for. Throws BAD_VALUE for a modular router with `--no-routing-replay`, which has no such
 * output, and for a monolithic router in two kernels.
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
