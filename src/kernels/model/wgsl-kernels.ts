/** The kernels of one forward pass, as WGSL with its constants and its reference: plain data, nothing compiled. */

import type { DeviceInfo, Kernel } from '../../contract/device.ts';
import type { ModelConfig, RouterConfig } from '../../contract/config.ts';
import { chunkTokens, gateGrid, gateKernel, packGate } from './gate/gate-kernel.ts';
import type { KernelSet, KernelSetFactory } from './kernel-set.ts';
import { BINDINGS, STEP_CONSTANTS, THREADS, modelShader, references } from './kernel-set.ts';
import type { KernelShape } from './kernel-shape.ts';
import { rowDtype } from './kernel-shape.ts';
import { routerKernel, routerWorkgroups, selectingPorts } from '../router/router-kernels.ts';
import type { EngineRouter } from './route/engine-router.ts';
import { MODULAR, chooseEngineRouter, selectionOf, weightsPerWord } from './route/engine-router.ts';
import { fusedGrid, fusedKernel } from './route/fused-kernel.ts';

/**
 * Threads per request of `attend`. A GPU wants many loads in flight for a long context; a software adapter runs a
 * workgroup's threads one small vector after another, and pays for each at the barrier.
 */
function attendThreads(info: Pick<DeviceInfo, 'isSoftware'>): number {
  return info.isSoftware ? 16 : 128;
}

/** All kernels for a model on a device, with a modular router. */
export const wgslKernels: KernelSetFactory = wgslKernelsFor(MODULAR);

/** `wgslKernels` with a router of that kind. */
export function wgslKernelsFor(router: RouterConfig): KernelSetFactory {
  return (model, shape, info) => wgslKernelsWith(model, shape, info, chooseEngineRouter(model, info, router), router);
}

/** `wgslKernels` with a way to route of one's own. */
export function wgslKernelsWith(
  model: ModelConfig,
  shape: KernelShape,
  info: Pick<DeviceInfo, 'isSoftware' | 'maxStorageBufferBytes'>,
  engineRouter: EngineRouter,
  router: RouterConfig = MODULAR,
): KernelSet {
  const reference = references(model, shape, router);
  const { blockSize, maxBlocksPerSeq, numSpeculativeTokens, vocabSize, wrongDraftsBelow } = shape;
  const { numLayers, numExperts, topK, maxNumBatchedTokens } = shape;
  const threads = attendThreads(info);
  const hasReplay = router.kind === 'monolithic' && router.hasRoutingReplay;
  // Kernels that know the layout of `routing_replay_out` are made for a number of rows.
  const replaySuffix = hasReplay ? `-m${maxNumBatchedTokens}` : '';
  const plainPack = (numLayers * topK) % 4 === 0 ? 'pack/pack-quads' : 'pack/pack';
  const packFile = hasReplay ? 'routing-replay/pack-routing-replay' : plainPack;
  const kernel = (
    role: Exclude<keyof typeof BINDINGS, 'route'>,
    file: string,
    name: string,
    constants: Record<string, number>,
  ): Kernel => ({
    name,
    wgsl: modelShader(file, constants),
    bindings: BINDINGS[role],
    requires: [],
    reference: reference[role],
  });
  return {
    attendWrite: {
      kernel: kernel('attendWrite', 'attend-write/attend-write', `attend-write/s${numSpeculativeTokens}`, {
        ...STEP_CONSTANTS,
        NUM_SPECULATIVE_TOKENS: numSpeculativeTokens,
      }),
      grid: (sizes) => [ceilGrid(Math.max(sizes.numTokens, sizes.numTableUpdates, 1), THREADS), 1],
    },
    attend: {
      kernel: kernel('attend', 'attend/attend', `attend/b${blockSize}-m${maxBlocksPerSeq}-t${threads}`, {
        ...STEP_CONSTANTS,
        BLOCK_SIZE: blockSize,
        MAX_BLOCKS_PER_SEQ: maxBlocksPerSeq,
        ATTEND_THREADS: threads,
        READ_AHEAD: info.isSoftware ? 1 : 4,
      }),
      grid: (sizes) => [sizes.numRequests, 1],
    },
    fold: {
      kernel: kernel('fold', 'fold/fold', 'fold', STEP_CONSTANTS),
      grid: ({ numTokens }) => [ceilGrid(numTokens, THREADS), 1],
    },
    ...routerKernels(model, shape, info, engineRouter, router, reference),
    sample: {
      kernel: kernel('sample', 'sample/sample', `sample/v${vocabSize}-s${numSpeculativeTokens}-w${wrongDraftsBelow}`, {
        ...STEP_CONSTANTS,
        VOCAB_SIZE: vocabSize,
        NUM_SPECULATIVE_TOKENS: numSpeculativeTokens,
        WRONG_DRAFTS_BELOW: wrongDraftsBelow,
      }),
      grid: (sizes) => [ceilGrid(sizes.numRequests, THREADS), 1],
    },
    pack: kernel('pack', packFile, `${packFile.split('/')[1]!}/l${numLayers}-e${numExperts}-k${topK}${replaySuffix}`, {
      THREADS,
      NUM_LAYERS: numLayers,
      TOP_K: topK,
      IDS_PER_WORD: rowDtype(numExperts) === 'uint8' ? 4 : 2,
      MAX_TOKENS: maxNumBatchedTokens,
    }),
    ballast: kernel('ballast', 'ballast/ballast', 'ballast', {}),
    gateWeights: () => packGate(model, weightsPerWord(engineRouter.variant)),
    router,
    expand: hasReplay
      ? {
          kernel: kernel(
            'expand',
            'routing-replay/expand-routing-replay',
            `expand-routing-replay/l${numLayers}-k${topK}${replaySuffix}`,
            { ...STEP_CONSTANTS, NUM_LAYERS: numLayers, TOP_K: topK, MAX_TOKENS: maxNumBatchedTokens },
          ),
          grid: ({ numTokens }) => [ceilGrid(numTokens * numLayers * topK, THREADS), 1],
        }
      : null,
  };
}

function routerKernels(
  model: ModelConfig,
  shape: KernelShape,
  info: Pick<DeviceInfo, 'isSoftware' | 'maxStorageBufferBytes'>,
  engineRouter: EngineRouter,
  router: RouterConfig,
  reference: ReturnType<typeof references>,
): Pick<KernelSet, 'gate' | 'route'> {
  const { isFused, variant } = engineRouter;
  const { numLayers, maxNumBatchedTokens } = shape;
  if (isFused) {
    const kernel = fusedKernel(model, variant, router, maxNumBatchedTokens, reference.route);
    return { gate: null, route: { kernel, grid: ({ numTokens }) => fusedGrid(variant, numTokens, numLayers) } };
  }
  const selection = selectionOf(model);
  const tokens = chunkTokens(model, info, maxNumBatchedTokens);
  return {
    gate: {
      kernel: gateKernel(model, info, tokens, reference.gate),
      grid: ({ numTokens }) => gateGrid(model, numTokens),
      chunkTokens: tokens,
    },
    route: {
      kernel: routerKernel(selection, variant, selectingPorts(selection, reference.select)),
      grid: ({ numTokens }) => [routerWorkgroups(variant, numTokens * numLayers), 1],
    },
  };
}

/** Workgroups for `items`, within WebGPU's limit of 65,535 in one dimension. */
function ceilGrid(items: number, perWorkgroup: number): number {
  return Math.min(65_535, Math.ceil(items / perWorkgroup));
}
