/** Which router kernel serves a shape on a device, and with which constants: pure functions, so that a test can ask for every answer. */

import type { ModelConfig } from '../contract/config.ts';
import type { DeviceInfo } from '../contract/device.ts';
import type { KernelShape } from './kernel-shape.ts';
import { gateWeights } from './reference/route.ts';

export type RouteVariant = Readonly<{
  /** Also the WGSL file: `wgsl/route-<algorithm>.wgsl`. */
  algorithm: 'portable' | 'wide' | 'subgroup';
  threads: number;
  /** Subgroup: experts that a lane of the smallest subgroup holds; else 0. */
  keysPerLane: number;
  /** Rows that a workgroup takes, or, for `subgroup` (whose loop takes the rest), starts with. */
  rowsPerWorkgroup: number;
}>;

type RouteShape = Pick<KernelShape, 'numLayers' | 'numExperts' | 'topK' | 'gateWidth'>;

/** Subgroups under this size win nothing over a thread per token. */
const MIN_USEFUL_SUBGROUP = 16;

/** Threads of a workgroup of the subgroup variant: a multiple of every subgroup size there is (4–128). */
const SUBGROUP_THREADS = 128;

/**
 * The variant without subgroups that fits the shape. A software adapter runs a workgroup's threads one small vector after another; a GPU
 * wants two subgroups' worth to hide what the loads take.
 */
export function portableVariant(shape: RouteShape, isSoftware: boolean): RouteVariant {
  const threads = isSoftware ? 16 : 64;
  if (shape.gateWidth !== 8 || shape.topK > 8 || shape.numExperts % 2 !== 0) {
    return { algorithm: 'wide', threads, keysPerLane: 0, rowsPerWorkgroup: threads };
  }
  return { algorithm: 'portable', threads, keysPerLane: 0, rowsPerWorkgroup: threads * 4 };
}

export function subgroupVariant(shape: RouteShape, smallestSubgroup: number): RouteVariant {
  return {
    algorithm: 'subgroup',
    threads: SUBGROUP_THREADS,
    keysPerLane: Math.ceil(shape.numExperts / smallestSubgroup),
    rowsPerWorkgroup: Math.max(1, SUBGROUP_THREADS / smallestSubgroup),
  };
}

/** The fastest variant: subgroups on a GPU that has useful ones, a thread for four tokens elsewhere. */
export function chooseRouteVariant(
  shape: RouteShape,
  info: Pick<DeviceInfo, 'isSoftware' | 'subgroupSizes'>,
): RouteVariant {
  const smallest = info.subgroupSizes?.[0] ?? 0;
  if (info.isSoftware || smallest < MIN_USEFUL_SUBGROUP) return portableVariant(shape, info.isSoftware);
  return subgroupVariant(shape, smallest);
}

/** e.g. `route/l36-e128-k4-g8-portable`: label, cache key, bench row and test title. */
export function routeVariantName(shape: RouteShape, variant: RouteVariant): string {
  const { numLayers, numExperts, topK, gateWidth } = shape;
  const name = `route/l${numLayers}-e${numExperts}-k${topK}-g${gateWidth}-${variant.algorithm}`;
  return variant.algorithm === 'subgroup' ? `${name}-n${variant.keysPerLane}` : `${name}-t${variant.threads}`;
}

/** The gate weights as the variant's WGSL wants them: f32, `[L, E, G]`, or pairs of experts `[L, E / 2, G]` for `portable`. */
export function packGateWeights(model: ModelConfig, variant: RouteVariant): Uint32Array {
  const weights = gateWeights(model);
  if (variant.algorithm !== 'portable') return new Uint32Array(weights.buffer);
  const { gateWidth } = model;
  const pairs = new Float32Array(weights.length / 2);
  for (let i = 0; i < pairs.length; i++) {
    const even = Math.floor(i / gateWidth) * 2 * gateWidth + (i % gateWidth);
    pairs[i] = weights[even]! + 8 + 2048 * (weights[even + gateWidth]! + 8);
  }
  return new Uint32Array(pairs.buffer);
}
