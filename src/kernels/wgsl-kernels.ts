/** The kernels of one forward pass, as WGSL with its constants and its reference: plain data, nothing compiled. */

import type { DeviceInfo, Kernel } from '../contract/device.ts';
import type { ModelConfig, RouterConfig } from '../contract/config.ts';
import { RECIPROCAL_ONE, SCORE_SHIFT, choiceKind, lowestLogit, scoreTable } from './expert-scores.ts';
import type { KernelSet, KernelSetFactory, StepKernel } from './kernel-set.ts';
import { BINDINGS, THREADS, references, routeBindings } from './kernel-set.ts';
import type { KernelShape } from './kernel-shape.ts';
import { rowDtype } from './kernel-shape.ts';
import type { RouteVariant } from './route-variant.ts';
import {
  MODULAR,
  chooseRouteVariant,
  keysPerLane,
  packGateWeights,
  routeVariantName,
  takesPairs,
} from './route-variant.ts';
import { FROM_DEVICE, HEADER_WORDS, Header, REQUEST_WORDS, RequestField } from './step-input.ts';
import { wgslModule, wgslSource } from './wgsl-source.ts';

const LAYOUT = {
  FROM_DEVICE,
  HEADER_WORDS,
  REQUEST_WORDS,
  H_NUM_TOKENS: Header.numTokens,
  H_NUM_REQUESTS: Header.numRequests,
  H_NUM_TABLE_UPDATES: Header.numTableUpdates,
  H_EPOCH: Header.epoch,
  H_TOKEN_REQUESTS: Header.tokenRequests,
  H_REQUESTS: Header.requests,
  H_TABLE_UPDATES: Header.tableUpdates,
  R_BATCH_SLOT: RequestField.batchSlot,
  R_TOKEN_START: RequestField.tokenStart,
  R_TOKEN_COUNT: RequestField.tokenCount,
  R_ROW_START: RequestField.rowStart,
  R_NUM_DRAFTS: RequestField.numDrafts,
  R_SAMPLES: RequestField.samples,
  THREADS,
} as const;

/**
 * Threads per request of `attend`. A GPU wants many loads in flight for a long context; a software adapter runs a workgroup's threads
 * one small vector after another, and pays for each at the barrier.
 */
function attendThreads(info: Pick<DeviceInfo, 'isSoftware'>): number {
  return info.isSoftware ? 16 : 128;
}

/** All kernels for a model on a device, the router, a modular one, in its fastest variant. */
export const wgslKernels: KernelSetFactory = (model, shape, info) =>
  wgslKernelsWith(model, shape, info, chooseRouteVariant(shape, info));

/** `wgslKernels` with a router of that kind. */
export function wgslKernelsFor(router: RouterConfig): KernelSetFactory {
  return (model, shape, info) => wgslKernelsWith(model, shape, info, chooseRouteVariant(shape, info, router), router);
}

/** `wgslKernels` with a router variant of one's own. */
export function wgslKernelsWith(
  model: ModelConfig,
  shape: KernelShape,
  info: Pick<DeviceInfo, 'isSoftware'>,
  variant: RouteVariant,
  router: RouterConfig = MODULAR,
): KernelSet {
  const reference = references(model, shape, router);
  const { blockSize, maxBlocksPerSeq, numSpeculativeTokens, vocabSize, wrongDraftsBelow } = shape;
  const threads = attendThreads(info);
  const kernel = (
    role: Exclude<keyof typeof BINDINGS, 'route' | 'expand'>,
    file: string,
    name: string,
    constants: Record<string, number>,
  ): Kernel => ({
    name,
    wgsl: wgslSource(file, constants),
    bindings: BINDINGS[role],
    requires: [],
    reference: reference[role],
  });
  return {
    attendWrite: {
      kernel: kernel('attendWrite', 'attend-write', `attend-write/s${numSpeculativeTokens}`, {
        ...LAYOUT,
        NUM_SPECULATIVE_TOKENS: numSpeculativeTokens,
      }),
      grid: (sizes) => [ceilGrid(Math.max(sizes.numTokens, sizes.numTableUpdates, 1), THREADS), 1],
    },
    attend: {
      kernel: kernel('attend', 'attend', `attend/b${blockSize}-m${maxBlocksPerSeq}-t${threads}`, {
        ...LAYOUT,
        BLOCK_SIZE: blockSize,
        MAX_BLOCKS_PER_SEQ: maxBlocksPerSeq,
        ATTEND_THREADS: threads,
        READ_AHEAD: info.isSoftware ? 1 : 4,
      }),
      grid: (sizes) => [sizes.numRequests, 1],
    },
    route: {
      kernel: {
        name: routeVariantName(shape, variant, router) + replaySuffix(shape, router),
        wgsl: routeSource(model, shape, variant, router),
        bindings: routeBindings(router),
        requires: variant.leastLanes > 0 ? ['subgroups'] : [],
        reference: reference.route,
      },
      grid: (sizes) => [ceilGrid(sizes.numTokens, variant.rowsPerWorkgroup), shape.numLayers],
    },
    sample: {
      kernel: kernel('sample', 'sample', `sample/v${vocabSize}-s${numSpeculativeTokens}-w${wrongDraftsBelow}`, {
        ...LAYOUT,
        VOCAB_SIZE: vocabSize,
        NUM_SPECULATIVE_TOKENS: numSpeculativeTokens,
        WRONG_DRAFTS_BELOW: wrongDraftsBelow,
      }),
      grid: (sizes) => [ceilGrid(sizes.numRequests, THREADS), 1],
    },
    pack: packKernel(shape, router, reference.pack),
    ballast: kernel('ballast', 'ballast', 'ballast', {}),
    gateWeights: () => packGateWeights(model, variant),
    router,
    expand: expandKernel(shape, router, reference.expand),
  };
}

/** How a router kernel is put together: what its variant shares with others, the variant itself, and what its kind puts out. */
function routeSource(model: ModelConfig, shape: KernelShape, variant: RouteVariant, router: RouterConfig): string {
  const { algorithm, threads, leastLanes, lanes } = variant;
  const { numLayers, numExperts, topK, gateWidth } = shape;
  const numWeights = (numLayers * numExperts * gateWidth) / (takesPairs(variant) ? 2 : 1);
  const { groups, hasSelectionBias } = shape.routingFunction;
  const constants = {
    ...LAYOUT,
    NUM_LAYERS: numLayers,
    NUM_EXPERTS: numExperts,
    TOP_K: topK,
    GATE_WIDTH: gateWidth,
    ROUTE_THREADS: threads,
    MAX_TOKENS: shape.maxNumBatchedTokens,
    LANES: lanes,
    KEYS_PER_LANE: leastLanes > 0 ? keysPerLane(shape, leastLanes) : 0,
    SLOTS: leastLanes > 0 ? Math.ceil(topK / leastLanes) : 0,
    CHOICE: choiceKind(model),
    HAS_BIAS: hasSelectionBias ? 1 : 0,
    GROUPS: groups?.count ?? 1,
    KEPT_GROUPS: groups?.keep ?? 1,
    SUMS_TWO: groups?.score === 'top2-sum' ? 1 : 0,
    LOWEST_LOGIT: lowestLogit(gateWidth),
    TABLE: numWeights,
    BIASES: numWeights + scoreTable(model).length,
    RECIPROCAL_ONE,
    SCORE_SHIFT,
  };
  // Those that take pairs write their ids in their own way.
  const files = ['mix', ...(takesPairs(variant) ? ['best-of-eight'] : OUTPUT_FILES[routerOutput(router)])];
  if (leastLanes > 0) files.push('subgroup-best');
  if (algorithm.startsWith('scored')) files.push('expert-scores');
  return wgslModule([...files, `route-${algorithm}`], constants);
}

const OUTPUT_FILES = {
  modular: ['modular'],
  monolithic: ['monolithic', 'no-routing-replay'],
  replay: ['monolithic', 'routing-replay-out'],
} as const;

function routerOutput(router: RouterConfig): keyof typeof OUTPUT_FILES {
  if (router.kind === 'modular') return 'modular';
  return router.hasRoutingReplay ? 'replay' : 'monolithic';
}

/** Kernels that know the layout of `routing_replay_out` are made for a number of rows. */
function replaySuffix({ maxNumBatchedTokens }: KernelShape, router: RouterConfig): string {
  return routerOutput(router) === 'replay' ? `-m${maxNumBatchedTokens}` : '';
}

function packKernel(shape: KernelShape, router: RouterConfig, reference: Kernel['reference']): Kernel {
  const { numLayers, numExperts, topK, maxNumBatchedTokens } = shape;
  const isReplay = routerOutput(router) === 'replay';
  const quads = (numLayers * topK) % 4 === 0 ? 'pack-quads' : 'pack';
  const file = isReplay ? 'pack-routing-replay' : quads;
  const constants = {
    THREADS,
    NUM_LAYERS: numLayers,
    TOP_K: topK,
    IDS_PER_WORD: rowDtype(numExperts) === 'uint8' ? 4 : 2,
    MAX_TOKENS: maxNumBatchedTokens,
  };
  return {
    name: `${file}/l${numLayers}-e${numExperts}-k${topK}${replaySuffix(shape, router)}`,
    wgsl: wgslSource(file, constants),
    bindings: BINDINGS.pack,
    requires: [],
    reference,
  };
}

function expandKernel(shape: KernelShape, router: RouterConfig, reference: Kernel['reference']): StepKernel | null {
  if (routerOutput(router) !== 'replay') return null;
  const { numLayers, topK, maxNumBatchedTokens } = shape;
  const kernel: Kernel = {
    name: `expand-routing-replay/l${numLayers}-k${topK}-m${maxNumBatchedTokens}`,
    wgsl: wgslSource('expand-routing-replay', {
      ...LAYOUT,
      NUM_LAYERS: numLayers,
      TOP_K: topK,
      MAX_TOKENS: maxNumBatchedTokens,
    }),
    bindings: BINDINGS.expand,
    requires: [],
    reference,
  };
  return { kernel, grid: ({ numTokens }) => [ceilGrid(numTokens * numLayers * topK, THREADS), 1] };
}

/** Workgroups for `items`, within WebGPU's limit of 65,535 in one dimension. */
function ceilGrid(items: number, perWorkgroup: number): number {
  return Math.min(65_535, Math.ceil(items / perWorkgroup));
}
