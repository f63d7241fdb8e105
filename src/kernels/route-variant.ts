/** Which router kernel serves a shape on a device, and with which constants: a pure function, so that a test can ask for every answer. */

import type { DeviceInfo } from '../contract/device.ts';
import type { KernelShape } from './kernel-shape.ts';

export type RouteVariant = Readonly<{
  algorithm: 'portable' | 'subgroup';
  threads: number;
  /** Portable: tokens that a thread takes through one layer. */
  rowsPerThread: number;
  /** Subgroup: experts that a lane of the smallest subgroup holds. */
  keysPerLane: number;
  /** Rows that a workgroup takes at least in one go. */
  rowsPerWorkgroup: number;
}>;

type RouteShape = Pick<KernelShape, 'numLayers' | 'numExperts' | 'topK' | 'gateWidth'>;

/** Subgroups under this size win nothing over a thread a token. */
const MIN_USEFUL_SUBGROUP = 16;

/** Threads of a workgroup of the subgroup variant: a multiple of every subgroup size there is (4–128). */
const SUBGROUP_THREADS = 128;

export function portableVariant(isSoftware: boolean): RouteVariant {
  const threads = isSoftware ? 16 : 64;
  const rowsPerThread = 1;
  return { algorithm: 'portable', threads, rowsPerThread, keysPerLane: 0, rowsPerWorkgroup: threads * rowsPerThread };
}

export function subgroupVariant(shape: RouteShape, smallestSubgroup: number): RouteVariant {
  return {
    algorithm: 'subgroup',
    threads: SUBGROUP_THREADS,
    rowsPerThread: 0,
    keysPerLane: Math.ceil(shape.numExperts / smallestSubgroup),
    rowsPerWorkgroup: SUBGROUP_THREADS / smallestSubgroup,
  };
}

/** The fastest variant, as measured in docs/benchmarks.md. */
export function chooseRouteVariant(
  shape: RouteShape,
  info: Pick<DeviceInfo, 'isSoftware' | 'subgroupSizes'>,
): RouteVariant {
  const smallest = info.subgroupSizes?.[0] ?? 0;
  if (info.isSoftware || smallest < MIN_USEFUL_SUBGROUP) return portableVariant(info.isSoftware);
  return subgroupVariant(shape, smallest);
}

/** e.g. `route/l36-e128-k4-g8-portable-t16r4`: label, cache key, bench row and test title. */
export function routeVariantName(shape: RouteShape, variant: RouteVariant): string {
  const { numLayers, numExperts, topK, gateWidth } = shape;
  const tuning =
    variant.algorithm === 'portable' ? `t${variant.threads}r${variant.rowsPerThread}` : `n${variant.keysPerLane}`;
  return `route/l${numLayers}-e${numExperts}-k${topK}-g${gateWidth}-${variant.algorithm}-${tuning}`;
}
