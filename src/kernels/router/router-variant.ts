/** Which kernel serves a routing function on a device, and with which constants: pure functions, so that a test can ask for every answer. */

import type { DeviceInfo } from '../../contract/device.ts';
import type { RouterFunction } from './router-function.ts';

export type RouterVariant =
  /** An invocation a row. */
  | Readonly<{ algorithm: 'portable'; threads: number; list: number }>
  /** A workgroup a row, by counting: for wide rows where there are no subgroups. */
  | Readonly<{ algorithm: 'wide'; threads: number }>
  /** `lanes` lanes a row; `isWhole`: all lanes of every subgroup of the device. `list`: keys that a lane keeps. */
  | Readonly<{ algorithm: 'subgroup'; threads: number; lanes: number; isWhole: boolean; list: number }>;

export type RouterAlgorithm = RouterVariant['algorithm'];

/** What the choice of a variant looks at. */
export type RouterHost = Pick<DeviceInfo, 'isSoftware' | 'subgroupSizes'>;

type Subgroups = DeviceInfo['subgroupSizes'];

/** A multiple of every subgroup size that there is (4–128). */
const SUBGROUP_THREADS = 128;

/** Experts of one lane: few enough to be all in flight at once, enough for several rows in a subgroup. */
const EXPERTS_PER_LANE = 24;

/** Experts from which a workgroup a row beats an invocation a row on a GPU. */
const MIN_WIDE_EXPERTS = 512;

const LIST_LENGTHS = [4, 6, 8, 16, 32] as const;

function listLength(wanted: number): number {
  return LIST_LENGTHS.find((length) => length >= wanted && length !== 6) ?? 32;
}

export function portableRouter({ topK }: RouterFunction, isSoftware: boolean): RouterVariant {
  return { algorithm: 'portable', threads: isSoftware ? 16 : 64, list: listLength(topK) };
}

export function wideRouter(): RouterVariant {
  return { algorithm: 'wide', threads: 128 };
}

/** `null` where a subgroup is too small: a lane takes a whole group of experts, so a row with groups wants as many lanes. */
export function subgroupRouter(router: RouterFunction, subgroups: Subgroups): RouterVariant | null {
  if (subgroups === null) return null;
  const [smallest, largest] = subgroups;
  const { numExperts, topK, groups } = router;
  const wanted = groups === null ? Math.max(topK, Math.ceil(numExperts / EXPERTS_PER_LANE)) : groups.count;
  const lanes = Math.min(32, smallest, powerOfTwo(wanted));
  if (groups !== null && lanes < groups.count) return null;
  const isWhole = lanes === smallest && lanes === largest;
  const sharers = groups === null ? lanes : Math.min(groups.keep, lanes);
  const list = laneList(topK, sharers);
  return { algorithm: 'subgroup', threads: SUBGROUP_THREADS, lanes, isWhole, list };
}

/**
 * Keys that a lane keeps so that hardly a row, for choices in random order, has as many of its K best in one lane: what that row takes longer,
 * a small launch takes longer.
 */
function laneList(topK: number, sharers: number): number {
  return LIST_LENGTHS.find((length) => length > topK || sharers * tail(topK, 1 / sharers, length) < 0.0015) ?? 32;
}

/** P(X ≥ count) for X ~ Binomial(n, p). */
function tail(n: number, p: number, count: number): number {
  if (p === 1) return 1;
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

/** e.g. `subgroup-l8-m4`. */
export function routerVariantName(variant: RouterVariant): string {
  switch (variant.algorithm) {
    case 'portable':
      return `portable-t${variant.threads}`;
    case 'wide':
      return `wide-t${variant.threads}`;
    case 'subgroup':
      return `subgroup-l${variant.lanes}${variant.isWhole ? 'w' : ''}-m${variant.list}`;
    default:
      return variant satisfies never;
  }
}
