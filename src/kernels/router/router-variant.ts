/**
 * Which kernel serves a routing function on a device, and with which constants: pure functions, so that a test can
 * ask for every device.
 */

import type { RoutingFunction } from '../../contract/config.ts';
import type { DeviceInfo } from '../../contract/device.ts';
import { hasFixedKeys } from './routing-function.ts';

export type RouterVariant =
  /** An invocation a row. */
  | Readonly<{ algorithm: 'portable'; threads: number; list: number }>
  /** A workgroup a row, by counting: for wide rows where there are no subgroups. */
  | Readonly<{ algorithm: 'wide'; threads: number }>
  | SubgroupVariant;

/**
 * `lanes` lanes a row. `list`: keys that a lane keeps; `isExact`: it also knows the next one. `quads`: logits, in
 * fours, that a lane reads and sorts at once.
 */
export type SubgroupVariant = Readonly<{
  algorithm: 'subgroup';
  threads: number;
  lanes: number;
  list: number;
  isExact: boolean;
  quads: number;
}>;

export type RouterAlgorithm = RouterVariant['algorithm'];

/** What the choice of a variant looks at. */
export type RouterHost = Pick<DeviceInfo, 'isSoftware' | 'subgroupSizes'>;

type Subgroups = DeviceInfo['subgroupSizes'];

/** A multiple of every subgroup size that there is (4–128). */
export const SUBGROUP_THREADS: number = 128;

/** Most experts of a lane. */
const MAX_SHARE = 32;
const MAX_QUADS = 8;
/** Eight with their biases take so many registers that too few rows are in flight. */
const MAX_QUADS_WITH_BIAS = 7;
/** Invocations from which it matters more how many rows are in flight than how long one takes. */
const MANY_INVOCATIONS = 2 ** 18;
/** Experts of a lane where a row then has no more than eight lanes: so that four rows share a subgroup of 32. */
const SHARE = 16;

/** Experts from which a workgroup a row beats an invocation a row on a GPU. */
const MIN_WIDE_EXPERTS = 512;

/**
 * The largest share of rows in which one lane may hold more of the row's best than its list has places, for choices in
 * random order and lists that do not know what comes behind them.
 */
const MAX_FULL_LISTS = 0.0015;
/** The largest share of subgroups of 32 lanes in which a list that knows what comes behind it may be too short. */
const MAX_SHORT_LISTS = 0.002;

export function portableRouter(
  { topK }: RoutingFunction,
  isSoftware: boolean,
): Extract<RouterVariant, { algorithm: 'portable' }> {
  return { algorithm: 'portable', threads: isSoftware ? 16 : 64, list: listOf(topK) };
}

/** Places of an invocation's list. */
export function listOf(topK: number): number {
  return Math.max(4, powerOfTwo(topK));
}

export function wideRouter(): RouterVariant {
  return { algorithm: 'wide', threads: 128 };
}

/**
 * The subgroup kernel for so many rows, or `null` where a subgroup is too small: a lane takes a whole group of experts,
 * so a row with groups wants as many lanes.
 */
export function subgroupRouter(
  router: RoutingFunction,
  subgroups: Subgroups,
  numTokens: number,
): SubgroupVariant | null {
  if (subgroups === null) return null;
  const [smallest] = subgroups;
  const { numExperts, topK, groups } = router;
  const wanted = Math.max(topK, numExperts / MAX_SHARE, Math.min(8, numExperts / SHARE));
  const lanes = Math.min(32, smallest, powerOfTwo(groups?.count ?? wanted));
  if (groups !== null && lanes < groups.count) return null;
  const sharers = groups === null ? lanes : Math.min(groups.keep, lanes);
  const isCrowded = hasFixedKeys(router) && (groups === null || numTokens * lanes >= MANY_INVOCATIONS);
  const quads = Math.ceil(shareOf(router, lanes) / 4);
  return {
    algorithm: 'subgroup',
    threads: SUBGROUP_THREADS,
    lanes,
    ...laneList(router, lanes, sharers),
    quads: Math.ceil(quads / Math.ceil(quads / (isCrowded ? MAX_QUADS_WITH_BIAS : MAX_QUADS))),
  };
}

/** Most experts of a lane: of a row without groups, or of a group. */
export function shareOf({ numExperts, groups }: RoutingFunction, lanes: number): number {
  return groups === null ? 4 * Math.ceil(numExperts / 4 / lanes) : numExperts / groups.count;
}

/**
 * The shortest list that is hardly ever too short: what such a row takes longer, a small launch takes longer. All
 * lanes' lists together have a place for each of the K.
 */
function laneList(router: RoutingFunction, lanes: number, sharers: number): Pick<SubgroupVariant, 'list' | 'isExact'> {
  const { topK } = router;
  const width = placesOf(router);
  const rowsWith = (keys: number): number => sharers * tail(topK, 1 / sharers, keys);
  for (let list = Math.min(width, Math.max(4, width / lanes)); list < width; list *= 2) {
    if (rowsWith(list) < MAX_FULL_LISTS) return { list, isExact: false };
    if ((32 / lanes) * rowsWith(list + 1) < MAX_SHORT_LISTS) return { list, isExact: true };
  }
  return { list: width, isExact: rowsWith(width) >= MAX_FULL_LISTS };
}

/** Places of a row that are found: a power of two. A group is ranked by two. */
export function placesOf({ topK, groups }: RoutingFunction): number {
  return powerOfTwo(groups === null ? topK : Math.max(topK, 2));
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

/**
 * Experts and rows from which subgroups are faster on software, too: their kernel takes a second longer to compile, and
 * twice as long for 16 rows.
 */
const MIN_SOFTWARE_EXPERTS = 256;
const MIN_SOFTWARE_TOKENS = 512;

/**
 * The fastest variant for so many rows: subgroups on a GPU that has them; else a workgroup a row for wide rows, an
 * invocation a row for others.
 */
export function chooseRouter(router: RoutingFunction, info: RouterHost, numTokens: number): RouterVariant {
  const isSmall = router.numExperts < MIN_SOFTWARE_EXPERTS || numTokens < MIN_SOFTWARE_TOKENS;
  if (info.isSoftware && isSmall) return portableRouter(router, true);
  const subgroup = subgroupRouter(router, info.subgroupSizes, numTokens);
  if (subgroup !== null) return subgroup;
  if (info.isSoftware) return portableRouter(router, true);
  return router.numExperts >= MIN_WIDE_EXPERTS ? wideRouter() : portableRouter(router, false);
}

/** Every variant that can run there, the chosen one first; those for other numbers of rows, too. */
export function routerVariants(router: RoutingFunction, info: RouterHost, numTokens: number): readonly RouterVariant[] {
  const all: (RouterVariant | null)[] = [
    chooseRouter(router, info, numTokens),
    portableRouter(router, info.isSoftware),
    wideRouter(),
    subgroupRouter(router, info.subgroupSizes, 1),
    subgroupRouter(router, info.subgroupSizes, MANY_INVOCATIONS),
  ];
  const byName = new Map<string, RouterVariant>();
  for (const variant of all) {
    if (variant === null) continue;
    const name = routerVariantName(variant);
    if (!byName.has(name)) byName.set(name, variant);
  }
  return [...byName.values()];
}

/** e.g. `subgroup-l8-m4x-q4`: lanes, length of their lists, whether exact, quads at once. */
export function routerVariantName(variant: RouterVariant): string {
  switch (variant.algorithm) {
    case 'portable':
      return `portable-t${variant.threads}`;
    case 'wide':
      return `wide-t${variant.threads}`;
    case 'subgroup':
      return `subgroup-l${variant.lanes}-m${variant.list}${variant.isExact ? 'x' : ''}-q${variant.quads}`;
    default:
      return variant satisfies never;
  }
}
