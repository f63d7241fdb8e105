/** The kernels of one forward pass, as WGSL with its constants and its reference: plain data, nothing compiled. */

import type { DeviceInfo, Kernel } from '../contract/device.ts';
import type { ModelConfig } from '../contract/config.ts';
import type { KernelRole, KernelSet, KernelSetFactory } from './kernel-set.ts';
import { BINDINGS, THREADS, references } from './kernel-set.ts';
import type { KernelShape } from './kernel-shape.ts';
import { rowDtype } from './kernel-shape.ts';
import type { RouteVariant } from './route-variant.ts';
import { chooseRouteVariant, packGateWeights, routeVariantName } from './route-variant.ts';
import { FROM_DEVICE, HEADER_WORDS, Header, REQUEST_WORDS, RequestField } from './step-input.ts';
import { wgslSource } from './wgsl-source.ts';

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

/** All kernels for a model on a device, the router in its fastest variant. */
export const wgslKernels: KernelSetFactory = (model, shape, info) =>
  wgslKernelsWith(model, shape, info, chooseRouteVariant(shape, info));

/** `wgslKernels` with a router variant of one's own. */
export function wgslKernelsWith(
  model: ModelConfig,
  shape: KernelShape,
  info: Pick<DeviceInfo, 'isSoftware'>,
  variant: RouteVariant,
): KernelSet {
  const reference = references(model, shape);
  const { blockSize, maxBlocksPerSeq, numSpeculativeTokens, vocabSize, numLayers, numExperts, topK } = shape;
  const threads = attendThreads(info);
  const packFile = (numLayers * topK) % 4 === 0 ? 'pack-quads' : 'pack';
  const kernel = (role: KernelRole, file: string, name: string, constants: Record<string, number>): Kernel => ({
    name,
    wgsl: wgslSource(file, constants),
    bindings: BINDINGS[role],
    requires: file === 'route-subgroup' ? ['subgroups'] : [],
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
      }),
      grid: (sizes) => [sizes.numRequests, 1],
    },
    route: {
      kernel: kernel('route', `route-${variant.algorithm}`, routeVariantName(shape, variant), {
        ...LAYOUT,
        NUM_LAYERS: numLayers,
        NUM_EXPERTS: numExperts,
        TOP_K: topK,
        GATE_WIDTH: shape.gateWidth,
        ROUTE_THREADS: variant.threads,
        KEYS_PER_LANE: variant.keysPerLane,
      }),
      grid: (sizes) => [ceilGrid(sizes.numTokens, variant.rowsPerWorkgroup), numLayers],
    },
    sample: {
      kernel: kernel('sample', 'sample', `sample/v${vocabSize}-s${numSpeculativeTokens}`, {
        ...LAYOUT,
        VOCAB_SIZE: vocabSize,
        NUM_SPECULATIVE_TOKENS: numSpeculativeTokens,
      }),
      grid: (sizes) => [ceilGrid(sizes.numRequests, THREADS), 1],
    },
    pack: kernel('pack', packFile, `${packFile}/l${numLayers}-e${numExperts}-k${topK}`, {
      THREADS,
      NUM_LAYERS: numLayers,
      TOP_K: topK,
      IDS_PER_WORD: rowDtype(numExperts) === 'uint8' ? 4 : 2,
    }),
    ballast: kernel('ballast', 'ballast', 'ballast', {}),
    gateWeights: () => packGateWeights(model, variant),
  };
}

/** Workgroups for `items`, within WebGPU's limit of 65,535 in one dimension. */
function ceilGrid(items: number, perWorkgroup: number): number {
  return Math.min(65_535, Math.ceil(items / perWorkgroup));
}
