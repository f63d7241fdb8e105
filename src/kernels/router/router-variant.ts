/** Which kernel serves a routing function on a device, and with which constants: pure functions, so that a test can ask for every answer. */

import type { DeviceInfo } from '../../contract/device.ts';
import type { RouterFunction } from './router-function.ts';

export type RouterVariant =
  /** An invocation a row. */
  | Readonly<{ algorithm: 'portable'; threads: number; list: number }>
  /** A workgroup a row, by counting: for wide rows where there are no subgroups. */
  | Readonly<{ algorithm: 'wide'; threads: number }>
  | SubgroupVariant;

/** `lanes` lanes a row. `list`: keys that a lane keeps; `isExact`: it also knows the next one. */
export type SubgroupVariant = Readonly<{
  algorithm: 'subgroup';
  threads: number;
  lanes: number;
  list: number;
  isExact: boolean;
}>;

export type RouterAlgorithm = RouterVariant['algorithm'];

/** What the choice of a variant looks at. */
export type RouterHost = Pick<DeviceInfo, 'isSoftware' | 'subgroupSizes'>;

type Subgroups = DeviceInfo['subgroupSizes'];

/** A multiple of every subgroup size that there is (4–128). */
const SUBGROUP_THREADS = 128;

/** Most experts of a lane: all in flight at once. */
const MAX_SHARE = 32;
/** Experts of a lane where a row then has no more than eight lanes: so that four rows share a subgroup of 32. */
const SHARE = 16;

/** Experts from which a workgroup a row beats an invocation a row on a GPU. */
const MIN_WIDE_EXPERTS = 512;

/** Rows, at most, of which a lane's list may be full of the row's best, for choices in random order, if nobody knows what comes behind it. */
const MAX_FULL_LISTS = 0.0015;
/** Subgroups of 32 lanes, at most, with a list that is too short. */
const MAX_SHORT_LISTS = 0.02;

export function portableRouter({ topK }: RouterFunction, isSoftware: boolean): RouterVariant {
  return { algorithm: 'portable', threads: isSoftware ? 16 : 64, list: Math.max(4, placesOf(topK)) };
}

export function wideRouter(): RouterVariant {
  return { algorithm: 'wide', threads: 128 };
}

/** `null` where a subgroup is too small: a lane takes a whole group of experts, so a row with groups wants as many lanes. */
export function subgroupRouter(router: RouterFunction, subgroups: Subgroups): SubgroupVariant | null {
  if (subgroups === null) return null;
  const [smallest] = subgroups;
  const { numExperts, topK, groups } = router;
  const wanted = Math.max(topK, numExperts / MAX_SHARE, Math.min(8, numExperts / SHARE));
  const lanes = Math.min(32, smallest, powerOfTwo(groups?.count ?? wanted));
  if (groups !== null && lanes < groups.count) return null;
  const sharers = groups === null ? lanes : Math.min(groups.keep, lanes);
  return { algorithm: 'subgroup', threads: SUBGROUP_THREADS, lanes, ...laneList(topK, lanes, sharers) };
}

/**
 * The shortest list that is hardly ever too short: what such a row takes longer, a small launch takes longer. All lanes' lists together have a place
 * for each of the K.
 */
function laneList(topK: number, lanes: number, sharers: number): Pick<SubgroupVariant, 'list' | 'isExact'> {
  const width = placesOf(topK);
  const rowsWith = (keys: number): number => sharers * tail(topK, 1 / sharers, keys);
  for (let list = Math.min(width, Math.max(4, width / lanes)); list < width; list *= 2) {
    if (rowsWith(list) < MAX_FULL_LISTS) return { list, isExact: false };
    if ((32 / lanes) * rowsWith(list + 1) < MAX_SHORT_LISTS) return { list, isExact: true };
  }
  return { list: width, isExact: rowsWith(width) >= MAX_FULL_LISTS };
}

/** Places of a row that are found: a power of two. */
export function placesOf(topK: number): number {
  return powerOfTwo(topK);
}

/** P(X ≥ count) for X ~ Binomial(n, p). */
function tail(n: number, p: number, count: number): number {
  if (p === 1) return n >= count ? 1 : 0;
  let term = (1 - p) ** n;
  let below = 0;
  for (let i = 0; i < count; i++) {
    below += term;
    term *= ((n - i) / (i + 1)) * (p / (1 - p));
  }
  return 1 - below;
}

function powerOfTwo(atLeast: number): number {
  return 2 ** Math.ceil(Math.log2(atLeast));
}

/** The fastest variant: subgroups on a GPU that has them; else a workgroup a row for wide rows, an invocation a row for the others. */
export function chooseRouter(router: RouterFunction, info: RouterHost): RouterVariant {
  if (info.isSoftware) return portableRouter(router, true);
  const subgroup = subgroupRouter(router, info.subgroupSizes);
  if (subgroup !== null) return subgroup;
  return router.numExperts >= MIN_WIDE_EXPERTS ? wideRouter() : portableRouter(router, false);
}

/** Every variant that can run there, the chosen one first. */
export function routerVariants(router: RouterFunction, info: RouterHost): readonly RouterVariant[] {
  const chosen = chooseRouter(router, info);
  const subgroup = subgroupRouter(router, info.subgroupSizes);
  const all = [portableRouter(router, info.isSoftware), wideRouter(), ...(subgroup === null ? [] : [subgroup])];
  return [chosen, ...all.filter(({ algorithm }) => algorithm !== chosen.algorithm)];
}

/** e.g. `subgroup-l8-m4x`: lanes, length of their lists, whether exact. */
export function routerVariantName(variant: RouterVariant): string {
  switch (variant.algorithm) {
    case 'portable':
      return `portable-t${variant.threads}`;
    case 'wide':
      return `wide-t${variant.threads}`;
    case 'subgroup':
      return `subgroup-l${variant.lanes}-m${variant.list}${variant.isExact ? 'x' : ''}`;
    default:
      return variant satisfies never;
  }
}
