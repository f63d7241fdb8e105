/** The gate as WGSL, and what gates and fused routers read of a model. */

import type { ModelConfig } from '../../../contract/config.ts';
import type { DeviceInfo, Kernel, KernelAccess } from '../../../contract/device.ts';
import { routingFunctionName, routingFunctionOf } from '../../router/routing-function.ts';
import { wgslModule } from '../../router/wgsl-module.ts';
import { Header } from '../step-input.ts';
import {
  ChoiceKind,
  RECIPROCAL_ONE,
  SCORE_SHIFT,
  choiceKind,
  lowestLogit,
  scoreTable,
  selectionBias,
} from './expert-scores.ts';
import { gateWeights } from './gate.ts';

/** stepInput, hidden, gateWeights, params, choices */
const GATE_BINDINGS: readonly KernelAccess[] = ['read', 'read', 'read', 'read-write', 'read-write'];

/** Tokens of a workgroup of the gate. */
const TILE = 16;

/** Most bytes of choices at once. A chunk more is two launches more. */
const MAX_CHUNK_BYTES = 2 ** 28;

/** `weightsPerWord`: 2 where a word of the packed gate holds the weights of two experts. */
export function gateConstants(model: ModelConfig, weightsPerWord: 1 | 2): Readonly<Record<string, number>> {
  const { numLayers, numExperts, gateWidth, firstLayer = 0 } = model;
  const kind = choiceKind(model);
  const weightWords = (numLayers * numExperts * gateWidth) / weightsPerWord;
  return {
    H_NUM_TOKENS: Header.numTokens,
    NUM_LAYERS: numLayers,
    FIRST_LAYER: firstLayer,
    NUM_EXPERTS: numExperts,
    GATE_WIDTH: gateWidth,
    LOWEST_LOGIT: lowestLogit(gateWidth),
    TABLE: weightWords,
    BIASES: weightWords + scoreTable(model).length,
    RECIPROCAL_ONE,
    SCORE_SHIFT,
    HAS_BIAS: Number(routingFunctionOf(model).hasSelectionBias),
    BY_LOGIT: Number(kind === ChoiceKind.logit),
    NEEDS_SUM: Number(kind === ChoiceKind.softmax),
  };
}

/** From hidden state and weights to the score of an expert. */
export function gateFiles(model: ModelConfig): readonly string[] {
  const scores = choiceKind(model) === ChoiceKind.softmax ? 'score-table-softmax' : 'score-table';
  return ['model/mix/mix', 'model/gate/gate', `model/gate/${scores}`, 'model/gate/score-fixed'];
}

/** Distinct for models whose gates differ. */
export function gateName(model: ModelConfig): string {
  const { numLayers, gateWidth, firstLayer = 0 } = model;
  const stage = firstLayer === 0 ? '' : `-f${firstLayer}`;
  return `l${numLayers}${stage}-g${gateWidth}-${routingFunctionName(routingFunctionOf(model))}`;
}

/**
 * All that gates and fused routers read of a model: weights in f32, `[L, E, G]` or of pairs of experts `[L, E / 2, G]`;
 * as i32, the table of scores and the selection biases `[L, E]`.
 */
export function packGate(model: ModelConfig, weightsPerWord: 1 | 2): Uint32Array {
  const weights = weightsPerWord === 2 ? pairWeights(model) : gateWeights(model);
  const table = scoreTable(model);
  const bias = selectionBias(model);
  const packed = new Uint32Array(Math.ceil((weights.length + table.length + bias.length) / 4) * 4);
  packed.set(new Uint32Array(weights.buffer));
  packed.set(table, weights.length);
  packed.set(bias, weights.length + table.length);
  return packed;
}

/** `even + 2048 · odd`, both as nibbles in [0, 15], for each pair of experts. */
function pairWeights(model: ModelConfig): Float32Array<ArrayBuffer> {
  const weights = gateWeights(model);
  const { gateWidth } = model;
  return Float32Array.from({ length: weights.length / 2 }, (_, i) => {
    const even = Math.floor(i / gateWidth) * 2 * gateWidth + (i % gateWidth);
    return weights[even]! + 8 + 2048 * (weights[even + gateWidth]! + 8);
  });
}

/** Tokens whose choices are in memory at once: as many as the device binds, at most `maxTokens`. */
export function chunkTokens(
  { numLayers, numExperts }: Pick<ModelConfig, 'numLayers' | 'numExperts'>,
  { maxStorageBufferBytes }: Pick<DeviceInfo, 'maxStorageBufferBytes'>,
  maxTokens: number,
): number {
  const tiles = Math.floor(Math.min(MAX_CHUNK_BYTES, maxStorageBufferBytes) / (4 * numLayers * numExperts * TILE));
  return Math.min(maxTokens, Math.max(1, tiles) * TILE);
}

/** The gate for chunks of `maxTokens` tokens. */
export function gateKernel(
  model: ModelConfig,
  info: Pick<DeviceInfo, 'isSoftware'>,
  maxTokens: number,
  reference: Kernel['reference'],
): Kernel {
  const { numExperts } = model;
  const maxThreads = info.isSoftware ? 16 : 128;
  const span = Math.min(maxThreads, 2 ** Math.ceil(Math.log2(Math.ceil(numExperts / 4))));
  const threads = Math.min(maxThreads, Math.max(TILE, span * 4));
  const constants = { ...gateConstants(model, 1), THREADS: threads, SPAN: span, TILE, CHUNK_TOKENS: maxTokens };
  const choices = numExperts % 4 === 0 ? 'model/gate/choices-quads' : 'model/gate/choices-words';
  return {
    name: `gate/${gateName(model)}-t${threads}-c${maxTokens}`,
    wgsl: wgslModule(['router/wgsl/stats', ...gateFiles(model), choices, 'model/gate/gate-choices'], constants),
    bindings: GATE_BINDINGS,
    requires: [],
    reference,
  };
}

/** Workgroups for `numTokens` tokens of a chunk. */
export function gateGrid({ numLayers }: Pick<ModelConfig, 'numLayers'>, numTokens: number): readonly [number, number] {
  return [Math.ceil(numTokens / TILE), numLayers];
}
