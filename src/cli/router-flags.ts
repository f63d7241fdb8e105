/** The flags `--router` and `--no-routing-replay`. */

import type { RouterConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';

type RouterFlags = Readonly<{ router: RouterConfig['kind']; routingReplay: boolean }>;

/** Throws BAD_VALUE for a modular router with `--no-routing-replay`: it has no output to leave out. */
export function routerConfig({ router: kind, routingReplay: hasRoutingReplay }: RouterFlags): RouterConfig {
  if (kind === 'monolithic') return { kind, hasRoutingReplay };
  if (hasRoutingReplay) return { kind };
  throw RoutedExpertsError.of('BAD_VALUE', '--router', kind, 'monolithic with --no-routing-replay');
}
