/** Which kernels route in the engine: one that makes its own logits, or a gate and a router kernel behind it. */

import type { ModelConfig, RouterConfig, RouterKernels, RoutingFunction } from '../../../contract/config.ts';
import type { RouterHost, RouterVariant } from '../../router/router-variant.ts';
import {
  SUBGROUP_THREADS,
  chooseRouter,
  listOf,
  portableRouter,
  routerVariantName,
  routerVariants,
} from '../../router/router-variant.ts';
import { routingFunction } from '../../router/routing-function.ts';

/** Gate and selection in one kernel. */
export type FusedVariant =
  /** Four tokens an invocation, two experts a multiplication. */
  | Readonly<{ algorithm: 'pairs'; threads: number; list: number }>
  /**
   * A subgroup of at least `leastLanes` a row, K rounds of one maximum. `lanes`: of all subgroups, or 0 where they
   * differ. `keys`: most experts of a lane.
   */
  | Readonly<{ algorithm: 'rounds'; threads: number; leastLanes: number; lanes: number; keys: number }>
  /** The router kernel, which computes each logit when it reads it. Fits every model and device. */
  | Extract<RouterVariant, { algorithm: 'portable' }>;

export type EngineRouter =
  | Readonly<{ isFused: true; variant: FusedVariant }>
  /** The router kernel that selects from what the gate writes. */
  | Readonly<{ isFused: false; variant: RouterVariant }>;

export const MODULAR: RouterConfig = { kind: 'modular' };

export const ROUTER_KERNELS: readonly RouterKernels[] = ['auto', 'fused', 'gated'];

/** Subgroups under this size win nothing over an invocation for four tokens. */
const MIN_USEFUL_SUBGROUP = 16;

/** Tokens of a step, about: what a kernel that serves steps of any size is chosen for. */
const TYPICAL_TOKENS = 64;

type RoutedModel = Pick<ModelConfig, 'numLayers' | 'numExperts' | 'topK' | 'gateWidth' | 'routingFunction'>;

/** What is left to select behind the gate, whose choices hold scores and biases. */
export function selectionOf({ numExperts, topK, routingFunction: given }: RoutedModel): RoutingFunction {
  return routingFunction({ numExperts, topK, scoring: 'identity', groups: given?.groups ?? null });
}

/** Weights in a word of the packed gate. */
export function weightsPerWord({ algorithm }: EngineRouter['variant']): 1 | 2 {
  return algorithm === 'pairs' ? 2 : 1;
}

/** `null`: the gate is too wide, or a group has an odd number of experts. */
function pairsRouter(model: RoutedModel, isSoftware: boolean): FusedVariant | null {
  const { numExperts, topK, gateWidth, routingFunction: given } = model;
  const isNarrow = gateWidth === 8 && (numExperts / (given?.groups?.count ?? 1)) % 2 === 0;
  return isNarrow ? { algorithm: 'pairs', threads: isSoftware ? 16 : 64, list: listOf(topK) } : null;
}

/** `null`: there are no subgroups, or groups of experts cannot get an equal number of a subgroup's lanes each. */
function roundsRouter(model: RoutedModel, subgroups: RouterHost['subgroupSizes']): FusedVariant | null {
  const numGroups = model.routingFunction?.groups?.count ?? 1;
  if (subgroups === null || subgroups[0] % numGroups !== 0) return null;
  const [leastLanes, mostLanes] = subgroups;
  return {
    algorithm: 'rounds',
    threads: SUBGROUP_THREADS,
    leastLanes,
    lanes: leastLanes === mostLanes ? leastLanes : 0,
    keys: Math.ceil(model.numExperts / numGroups / (leastLanes / numGroups)),
  };
}

/** The fused kernel that is made for the device and the model, or `null`. */
function fusedRouter(model: RoutedModel, { isSoftware, subgroupSizes }: RouterHost): FusedVariant | null {
  const isUseful = !isSoftware && subgroupSizes !== null && subgroupSizes[0] >= MIN_USEFUL_SUBGROUP;
  return (isUseful ? roundsRouter(model, subgroupSizes) : null) ?? pairsRouter(model, isSoftware);
}

/**
 * `auto` is one kernel where there is one that is made for the device: a second launch takes a small step a fifth
 * longer, and writing and reading the choices costs a large step about what the faster selection saves. A monolithic
 * router is one kernel always.
 */
export function chooseEngineRouter(model: RoutedModel, info: RouterHost, router: RouterConfig = MODULAR): EngineRouter {
  const kernels = router.kind === 'modular' ? (router.kernels ?? 'auto') : 'fused';
  const selection = selectionOf(model);
  const fused = kernels === 'gated' ? null : fusedRouter(model, info);
  if (fused !== null) return { isFused: true, variant: fused };
  if (kernels === 'fused') return { isFused: true, variant: portableRouter(selection, info.isSoftware) };
  return { isFused: false, variant: chooseRouter(selection, info, model.numLayers * TYPICAL_TOKENS) };
}

/** Every way that a device can go, the chosen one first. */
export function engineRouters(
  model: RoutedModel,
  info: RouterHost,
  router: RouterConfig = MODULAR,
): readonly EngineRouter[] {
  const selection = selectionOf(model);
  const all: EngineRouter[] = [chooseEngineRouter(model, info, router)];
  const fused = [
    roundsRouter(model, info.subgroupSizes),
    pairsRouter(model, info.isSoftware),
    portableRouter(selection, info.isSoftware),
  ];
  for (const variant of fused) if (variant !== null) all.push({ isFused: true, variant });
  if (router.kind === 'modular') {
    const variants = routerVariants(selection, info, model.numLayers * TYPICAL_TOKENS);
    for (const variant of variants) all.push({ isFused: false, variant });
  }
  const names = all.map(engineRouterName);
  return all.filter((_, i) => names.indexOf(names[i]!) === i);
}

/** e.g. `gate+subgroup-l8-m4-q4`, `fused-rounds-s32`, `fused-pairs-t16`. */
export function engineRouterName({ isFused, variant }: EngineRouter): string {
  return `${isFused ? 'fused-' : 'gate+'}${engineVariantName(variant)}`;
}

export function engineVariantName(variant: EngineRouter['variant']): string {
  if (variant.algorithm === 'pairs') return `pairs-t${variant.threads}`;
  if (variant.algorithm === 'rounds') return `rounds-s${variant.leastLanes}${variant.lanes > 0 ? '' : '+'}`;
  return routerVariantName(variant);
}
