/** Router kernels on given logits: a routing function and a variant as WGSL with its constants. */

import type { Kernel, KernelAccess } from '../../contract/device.ts';
import { putRows, routeRows } from './reference/router-reference.ts';
import type { LaneNetwork } from './lane-network-wgsl.ts';
import { laneNetworkWgsl } from './lane-network-wgsl.ts';
import { rowLayout } from './lane-network.ts';
import type { RoutingFunction } from '../../contract/config.ts';
import { hasFixedKeys, routingFunctionName, selectsByLogit } from './routing-function.ts';
import type { RouterVariant, SubgroupVariant } from './router-variant.ts';
import { placesOf, routerVariantName, shareOf } from './router-variant.ts';
import { wgslModule } from './wgsl-module.ts';

/** params: `routerParams`, logits f32 `[T, E]`, ids u32 `[T, K]`, weights f32 `[T, K]`, selectionBias f32 `[E]` */
const ROUTER_BINDINGS: readonly KernelAccess[] = ['read', 'read', 'read-write', 'read-write', 'read'];

const SCORE_FILES = {
  softmax: 'score/score-softmax',
  'topk-softmax': 'score/score-softmax',
  sigmoid: 'score/score-sigmoid',
  'topk-sigmoid': 'score/score-sigmoid',
  'sqrt-softplus': 'score/score-sqrt-softplus',
  // The mixer scores nothing but what it weighs.
  sparsemixer: 'score/score-softmax',
  identity: 'score/score-identity',
} as const;

/** Where a kernel has its logits from, and what it puts out. */
export type RouterPorts = Readonly<{
  /** Part of the kernel's name; empty for logits in, ids and weights out. */
  name: string;
  /** Files between `common.wgsl` and the algorithm's own. */
  files: readonly string[];
  /** How lanes make keys of choices. */
  keys: 'choose-logit-keys' | 'choose-score-keys' | 'choose-sigmoid-keys';
  constants: Readonly<Record<string, number>>;
  bindings: readonly KernelAccess[];
  reference: Kernel['reference'];
}>;

function givenFiles(router: RoutingFunction): readonly string[] {
  const { numExperts, groups, scoring } = router;
  const hasQuads = numExperts % 4 === 0 && (groups === null || (numExperts / groups.count) % 4 === 0);
  const logits = hasQuads ? 'logits-quads' : 'logits-words';
  const choose = selectsByLogit(router) ? 'choose/choose-logit' : 'choose/choose-score';
  return ['given', logits, 'sums', SCORE_FILES[scoring], choose].map(ownFile);
}

function ownFile(name: string): string {
  return `router/wgsl/${name}`;
}

/** Logits in, ids and weights out. */
function weightedPorts(router: RoutingFunction): RouterPorts {
  const weigh = router.scoring === 'sparsemixer' ? 'weigh-sparsemixer' : 'weigh-score';
  return {
    name: '',
    files: [...givenFiles(router), `router/wgsl/${weigh}`, 'router/wgsl/put-weights'],
    keys: keysFile(router),
    constants: { WEIGHS: 1 },
    bindings: ROUTER_BINDINGS,
    reference: ([params, logits, ids, weights, bias]) => {
      const given = floatsOf(logits!).subarray(0, params![0]! * router.numExperts);
      const rows = routeRows(router, given, router.hasSelectionBias ? floatsOf(bias!) : null);
      putRows(rows, ids!, floatsOf(weights!));
    },
  };
}

/**
 * params, choices and ids alone: what selects behind the engine's gate. `params[1]`: the place of the first row among
 * those of `ids`.
 */
export function selectingPorts(router: RoutingFunction, reference: Kernel['reference']): RouterPorts {
  return {
    name: '-ids',
    files: [...givenFiles(router), 'router/wgsl/put-ids'],
    keys: keysFile(router),
    constants: { WEIGHS: 0 },
    bindings: ROUTER_BINDINGS.slice(0, 3),
    reference,
  };
}

/**
 * The kernel. Its reference is the one in f64: ids are the same outside the margin of docs/router-kernels.md, weights
 * to a relative 1e-5.
 */
export function routerKernel(
  router: RoutingFunction,
  variant: RouterVariant,
  ports: RouterPorts = weightedPorts(router),
): Kernel {
  const name = routerVariantName(variant);
  const { threads: THREADS } = variant;
  switch (variant.algorithm) {
    case 'portable': {
      const constants = { GUARDED: 0, LIST: variant.list, THREADS };
      return assembleRouter(router, { name, files: ['select/list', 'select/portable'].map(ownFile), constants }, ports);
    }
    case 'wide':
      return assembleRouter(
        router,
        { name, files: [ownFile('select/wide')], constants: { GUARDED: 0, THREADS } },
        ports,
      );
    case 'subgroup':
      return subgroupKernel(router, variant, ports);
    default:
      return variant satisfies never;
  }
}

function subgroupKernel(router: RoutingFunction, variant: SubgroupVariant, ports: RouterPorts): Kernel {
  const { numExperts, groups } = router;
  const { lanes, list, isExact, quads } = variant;
  const isEven =
    groups === null ? numExperts % (4 * lanes) === 0 : lanes === groups.count && shareOf(router, lanes) % 4 === 0;
  const allQuads = Math.ceil(shareOf(router, lanes) / 4);
  const chunks = Math.ceil(allQuads / quads);
  const network: LaneNetwork = { lanes, keys: 4 * quads, chunks, list, width: placesOf(router), isExact };
  const layout = rowLayout(lanes, network.width);
  const constants = {
    THREADS: variant.threads,
    LANES: lanes,
    LIST: list,
    WIDTH: network.width,
    PLACE_LANES: layout.lanes,
    SLOTS: layout.slots,
    CHUNKS: chunks,
    QUADS: quads,
    // The largest power of two that divides the quads of a chunk.
    ROTATED: quads & -quads,
    QUAD_STEP: groups === null ? 4 * lanes : 4,
    GUARDED: Number(!isEven || allQuads !== quads * chunks),
  };
  const files = [
    `choose/${ports.keys}`,
    'select/lanes',
    groups === null ? 'select/lanes-interleaved' : 'select/lanes-grouped',
    'select/subgroup',
    'select/settle-anew',
    layout.slots === 1 ? 'select/settle-by-rank' : 'select/settle-many',
  ].map(ownFile);
  const kernel = assembleRouter(router, { name: routerVariantName(variant), files, constants }, ports);
  return { ...kernel, wgsl: (read) => kernel.wgsl(read) + laneNetworkWgsl(network), requires: ['subgroups'] };
}

/** What an algorithm brings: its name and files, and the constants that these want. */
export type RouterAlgorithmFiles = Readonly<{
  name: string;
  files: readonly string[];
  constants: Readonly<Record<string, number>>;
}>;

/** A kernel from the files that every router begins with, those of its ports, and those that select. */
export function assembleRouter(
  router: RoutingFunction,
  { name, files, constants }: RouterAlgorithmFiles,
  ports: RouterPorts = weightedPorts(router),
): Kernel {
  const first = ['stats', 'common', router.softCap > 0 ? 'cap-tanh' : 'cap-none'];
  const floats = {
    SOFT_CAP: router.softCap,
    JITTER: router.jitter,
    EPSILON: router.epsilon,
    MIN_DENOMINATOR: router.minDenominator,
    SCALE: router.scale,
  };
  return {
    name: `router/${routingFunctionName(router)}-${name}${ports.name}`,
    wgsl: wgslModule(
      [...first.map(ownFile), ...ports.files, ...files],
      { ...functionConstants(router), ...ports.constants, ...constants },
      floats,
    ),
    bindings: ports.bindings,
    requires: [],
    reference: ports.reference,
  };
}

/**
 * The number of rows, and the bits of a whole number near the greatest selection bias, from which keys in fixed point
 * count: choices up to six lower are found fast, others slowly.
 */
export function routerParams(numTokens: number, bias: Float32Array | null): Uint32Array {
  const params = Uint32Array.of(numTokens, 0);
  const greatest = bias === null ? 0 : Math.floor(bias.reduce((most, value) => Math.max(most, value), -Infinity));
  new Float32Array(params.buffer)[1] = greatest;
  return params;
}

/** Rows that a workgroup takes before it looks for more. */
export function rowsPerWorkgroup(variant: RouterVariant): number {
  if (variant.algorithm === 'wide') return 1;
  return variant.algorithm === 'portable' ? variant.threads : variant.threads / variant.lanes;
}

/** Workgroups for `numTokens` rows; any number is right. */
export function routerWorkgroups(variant: RouterVariant, numTokens: number): number {
  return Math.min(65_535, Math.max(1, Math.ceil(numTokens / rowsPerWorkgroup(variant))));
}

function keysFile(router: RoutingFunction): RouterPorts['keys'] {
  if (selectsByLogit(router)) return 'choose-logit-keys';
  return hasFixedKeys(router) ? 'choose-sigmoid-keys' : 'choose-score-keys';
}

function functionConstants(router: RoutingFunction): Record<string, number> {
  const { numExperts, topK, scoring, groups } = router;
  const count = groups?.count ?? 1;
  const isSoftmax = scoring === 'softmax';
  const cancels = router.renormalize && router.epsilon === 0 && router.minDenominator === 0 && selectsByLogit(router);
  return {
    NUM_EXPERTS: numExperts,
    TOP_K: topK,
    ID_MASK: 2 ** Math.max(1, Math.ceil(Math.log2(numExperts))) - 1,
    BY_LOGIT: Number(selectsByLogit(router)),
    HAS_BIAS: Number(router.hasSelectionBias),
    NEEDS_SUM: Number(isSoftmax && !cancels),
    RENORMALIZE: Number(router.renormalize || scoring === 'topk-softmax'),
    GROUPS: count,
    KEPT_GROUPS: groups?.keep ?? 1,
    GROUP_SIZE: numExperts / count,
    GROUP_TOP2: Number(groups?.score === 'top2-sum'),
  };
}

function floatsOf(words: Uint32Array): Float32Array {
  return new Float32Array(words.buffer, words.byteOffset, words.length);
}
