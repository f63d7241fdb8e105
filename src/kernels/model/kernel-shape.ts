/**
 * Every size that a kernel is specialised for, derived from model and engine; and the limits that the kernels'
 * arithmetic sets.
 */

import type { EngineConfig, ModelConfig, RoutingFunction, RowDtype } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { routingFunctionOf } from '../router/routing-function.ts';

export type KernelShape = Readonly<{
  numLayers: number;
  numExperts: number;
  topK: number;
  gateWidth: number;
  vocabSize: number;
  routingFunction: RoutingFunction;
  blockSize: number;
  /** Entries of one row of the block table. */
  maxBlocksPerSeq: number;
  maxNumSeqs: number;
  maxNumBatchedTokens: number;
  numSpeculativeTokens: number;
  /** A draft is wrong if its 32-bit hash is smaller. */
  wrongDraftsBelow: number;
  /** KV slots: blocks × tokens per block. */
  numSlots: number;
}>;

/**
 * With inputs and weights in [−8, 7] a logit stays under 64 · G, and its key `logit · 1024 + 1023 − id` under 2^24:
 * exact in f32, too. The raw sums of nibbles in [0, 15] that `reference/gate.ts` makes stay under 2^16.
 */
const MAX_GATE_WIDTH = 248;

/** How likely a draft is right, by default. */
export const DRAFT_ACCEPTANCE_RATE = 0.7;

/** Rate 0 lets one draft in 2^32 through: a u32 holds no larger bound. */
function wrongDraftsBelow(acceptanceRate: number): number {
  if (!(acceptanceRate >= 0 && acceptanceRate <= 1)) {
    throw RoutedExpertsError.of('BAD_VALUE', 'draftAcceptanceRate', acceptanceRate, 'a share in [0, 1]');
  }
  return Math.min(2 ** 32 - 1, Math.floor((1 - acceptanceRate) * 2 ** 32));
}

function requireWhole(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw RoutedExpertsError.of('BAD_VALUE', name, value, `a whole number in [${min}, ${max}]`);
  }
}

/** Throws `BAD_VALUE` for a shape that the kernels cannot hold. */
export function kernelShape(
  model: ModelConfig,
  engine: EngineConfig,
  draftAcceptanceRate: number = DRAFT_ACCEPTANCE_RATE,
): KernelShape {
  checkModel(model);
  const maxBlocksPerSeq = Math.ceil((engine.maxModelLen + engine.numSpeculativeTokens) / engine.blockSize);
  requireWhole('numBlocks × blockSize', engine.numBlocks * engine.blockSize, 1, 2 ** 32 - 1);
  requireWhole('maxNumSeqs', engine.maxNumSeqs, 1, 65_535);
  return {
    numLayers: model.numLayers,
    numExperts: model.numExperts,
    topK: model.topK,
    gateWidth: model.gateWidth,
    vocabSize: model.vocabSize,
    routingFunction: routingFunctionOf(model),
    blockSize: engine.blockSize,
    maxBlocksPerSeq,
    maxNumSeqs: engine.maxNumSeqs,
    maxNumBatchedTokens: engine.maxNumBatchedTokens,
    numSpeculativeTokens: engine.numSpeculativeTokens,
    wrongDraftsBelow: wrongDraftsBelow(draftAcceptanceRate),
    numSlots: engine.numBlocks * engine.blockSize,
  };
}

/** Throws `BAD_VALUE` for a model that the router kernels cannot hold. */
export function checkModel(model: ModelConfig): void {
  // A pipeline stage can be without any router.
  requireWhole('numLayers', model.numLayers, model.firstLayer === undefined ? 1 : 0, 65_535);
  checkDenseLayers(model);
  requireWhole('vocabSize', model.vocabSize, 2, 2 ** 31 - 1);
  requireWhole('gateWidth', model.gateWidth, 8, MAX_GATE_WIDTH);
  if (model.gateWidth % 8 !== 0) {
    throw RoutedExpertsError.of('BAD_VALUE', 'gateWidth', model.gateWidth, 'a multiple of 8');
  }
  routingFunctionOf(model);
}

function checkDenseLayers({ numLayers, denseLayers = [] }: ModelConfig): void {
  const end = numLayers + denseLayers.length;
  const isInOrder = denseLayers.every(
    (layer, i) => Number.isInteger(layer) && layer > (denseLayers[i - 1] ?? -1) && layer < end,
  );
  if (isInOrder) return;
  throw RoutedExpertsError.of('BAD_VALUE', 'denseLayers', denseLayers, `ascending layers in [0, ${end})`);
}

/** The narrowest dtype that holds every expert id: ids of more than 256 experts wrap in `uint8`. */
export function rowDtype(numExperts: number): RowDtype {
  return numExperts <= 256 ? 'uint8' : 'uint16';
}

/** Bytes of one packed row, `L · K` ids in the row dtype. */
export function packedRowBytes(model: Pick<ModelConfig, 'numLayers' | 'numExperts' | 'topK'>): number {
  return model.numLayers * model.topK * (rowDtype(model.numExperts) === 'uint8' ? 1 : 2);
}

/** Bytes that `pack` writes for `numRows` rows: dense, rounded up to whole words. */
export function packedBytes(model: Pick<ModelConfig, 'numLayers' | 'numExperts' | 'topK'>, numRows: number): number {
  return Math.ceil((packedRowBytes(model) * numRows) / 4) * 4;
}
