/** Which router kernel serves a shape on a device, and with which constants: pure functions, so that a test can ask for every answer. */

import type { ModelConfig, RouterConfig } from '../contract/config.ts';
import type { DeviceInfo } from '../contract/device.ts';
import { scoreTable, selectionBias } from './expert-scores.ts';
import { gateWeights } from './reference/route.ts';
import { isPlainTopK, PLAIN, routingFunctionName } from './routing-function.ts';

export type RouteVariant = Readonly<{
  /** Also the WGSL file: `wgsl/route-<algorithm>.wgsl`. */
  algorithm: 'portable' | 'wide' | 'subgroup' | 'scored-portable' | 'scored' | 'scored-subgroup';
  threads: number;
  /** With subgroups: lanes of the smallest one; else 0. */
  leastLanes: number;
  /** With subgroups that are all equal: their lanes; else 0. */
  lanes: number;
  /** Rows that a workgroup takes, or, with subgroups (whose loop takes the rest), starts with. */
  rowsPerWorkgroup: number;
}>;

type RouteShape = Pick<ModelConfig, 'numLayers' | 'numExperts' | 'topK' | 'gateWidth' | 'routingFunction'>;

export const MODULAR: RouterConfig = { kind: 'modular' };

/** Subgroups under this size win nothing over a thread per token. */
const MIN_USEFUL_SUBGROUP = 16;

/** Threads of a workgroup of the subgroup variant: a multiple of every subgroup size there is (4–128). */
const SUBGROUP_THREADS = 128;

/**
 * The variant without subgroups that fits shape and router. A software adapter runs a workgroup's threads one small vector after another; a GPU
 * wants two subgroups' worth to hide what the loads take. The two that take four tokens a thread are for modular routers: they have no place
 * for more.
 */
export function portableVariant(shape: RouteShape, isSoftware: boolean, router: RouterConfig = MODULAR): RouteVariant {
  const threads = isSoftware ? 16 : 64;
  const oneRow = { threads, leastLanes: 0, lanes: 0, rowsPerWorkgroup: threads };
  const groupSize = shape.numExperts / (shape.routingFunction?.groups?.count ?? 1);
  const isNarrow = shape.gateWidth === 8 && shape.topK <= 8 && groupSize % 2 === 0;
  if (!isNarrow || router.kind === 'monolithic') return { algorithm: isPlain(shape) ? 'wide' : 'scored', ...oneRow };
  return { algorithm: isPlain(shape) ? 'portable' : 'scored-portable', ...oneRow, rowsPerWorkgroup: threads * 4 };
}

/** `null`: groups of experts get an equal number of lanes each, and these subgroups have too few. */
export function subgroupVariant(
  shape: RouteShape,
  [leastLanes, mostLanes]: readonly [min: number, max: number],
): RouteVariant | null {
  const { routingFunction = PLAIN } = shape;
  if (leastLanes % (routingFunction.groups?.count ?? 1) !== 0) return null;
  return {
    algorithm: isPlain(shape) ? 'subgroup' : 'scored-subgroup',
    threads: SUBGROUP_THREADS,
    leastLanes,
    lanes: leastLanes === mostLanes ? leastLanes : 0,
    rowsPerWorkgroup: Math.max(1, SUBGROUP_THREADS / leastLanes),
  };
}

/** Experts that a lane holds at most, in subgroups of at least so many lanes. */
export function keysPerLane({ numExperts, routingFunction = PLAIN }: RouteShape, leastLanes: number): number {
  const numGroups = isPlainTopK(routingFunction) ? 1 : (routingFunction.groups?.count ?? 1);
  return Math.ceil(numExperts / numGroups / (leastLanes / numGroups));
}

/** Every variant that computes the shape's function, the one without subgroups first. */
export function routeVariants(
  shape: RouteShape,
  isSoftware: boolean,
  subgroupSizes: DeviceInfo['subgroupSizes'],
  router: RouterConfig = MODULAR,
): readonly RouteVariant[] {
  const variants = [portableVariant(shape, isSoftware, router)];
  const { threads } = variants[0]!;
  if (takesPairs(variants[0]!)) {
    const algorithm = isPlain(shape) ? 'wide' : 'scored';
    variants.push({ algorithm, threads, leastLanes: 0, lanes: 0, rowsPerWorkgroup: threads });
  }
  const withSubgroups = subgroupSizes === null ? null : subgroupVariant(shape, subgroupSizes);
  if (withSubgroups !== null) variants.push(withSubgroups);
  return variants;
}

/** Variants that take four tokens a thread and two experts a weight. */
export function takesPairs({ algorithm }: Pick<RouteVariant, 'algorithm'>): boolean {
  return algorithm === 'portable' || algorithm === 'scored-portable';
}

function isPlain({ routingFunction = PLAIN }: RouteShape): boolean {
  return isPlainTopK(routingFunction);
}

/** The fastest variant: subgroups on a GPU that has useful ones, a thread for four tokens elsewhere. */
export function chooseRouteVariant(
  shape: RouteShape,
  info: Pick<DeviceInfo, 'isSoftware' | 'subgroupSizes'>,
  router: RouterConfig = MODULAR,
): RouteVariant {
  const { isSoftware, subgroupSizes } = info;
  const isUseful = subgroupSizes !== null && subgroupSizes[0] >= MIN_USEFUL_SUBGROUP && !isSoftware;
  return (isUseful ? subgroupVariant(shape, subgroupSizes) : null) ?? portableVariant(shape, isSoftware, router);
}

/** e.g. `route/l36-e128-k4-g8-topk-portable-t16`: label, cache key, bench row and test title. */
export function routeVariantName(shape: RouteShape, variant: RouteVariant, router: RouterConfig = MODULAR): string {
  const { numLayers, numExperts, topK, gateWidth, routingFunction } = shape;
  const { algorithm, threads, leastLanes, lanes } = variant;
  const selection = routingFunctionName(routingFunction);
  const name = `route/l${numLayers}-e${numExperts}-k${topK}-g${gateWidth}-${selection}-${algorithm}`;
  const sized = leastLanes > 0 ? `${name}-s${leastLanes}${lanes > 0 ? '' : '+'}` : `${name}-t${threads}`;
  if (router.kind === 'modular') return sized;
  return `${sized}-monolithic${router.hasRoutingReplay ? '-replay' : ''}`;
}

/**
 * What the variant's WGSL wants to know of the model. The gate weights as f32, `[L, E, G]`, or pairs of experts `[L, E / 2, G]`; behind them, for
 * a scored router, its table of scores and its selection biases as i32.
 */
export function packGateWeights(model: ModelConfig, variant: RouteVariant): Uint32Array {
  const weights = takesPairs(variant) ? pairWeights(model) : gateWeights(model);
  if (isPlain(model)) return new Uint32Array(weights.buffer);
  const table = scoreTable(model);
  const bias = selectionBias(model);
  const words = new Uint32Array(Math.ceil((weights.length + table.length + bias.length) / 4) * 4);
  words.set(new Uint32Array(weights.buffer));
  words.set(table, weights.length);
  words.set(bias, weights.length + table.length);
  return words;
}

/** `even + 2048 · odd`, both as nibbles in [0, 15], for each pair of experts. */
function pairWeights(model: ModelConfig): Float32Array<ArrayBuffer> {
  const weights = gateWeights(model);
  const { gateWidth } = model;
  const pairs = new Float32Array(weights.length / 2);
  for (let i = 0; i < pairs.length; i++) {
    const even = Math.floor(i / gateWidth) * 2 * gateWidth + (i % gateWidth);
    pairs[i] = weights[even]! + 8 + 2048 * (weights[even + gateWidth]! + 8);
  }
  return pairs;
}
