/** The engine's gate as WGSL: choices of all experts, from which the router kernels select; and what gate and fused routers read. */

import type { ModelConfig } from '../contract/config.ts';
import type { Kernel, KernelAccess } from '../contract/device.ts';
import {
  RECIPROCAL_ONE,
  SCORE_SHIFT,
  choiceKind,
  ChoiceKind,
  lowestLogit,
  scoreTable,
  selectionBias,
} from './expert-scores.ts';
import { gateWeights } from './reference/route.ts';
import type { RouterPorts } from './router/router-kernels.ts';
import { PLAIN, routingFunctionName } from './routing-function.ts';
import { Header } from './step-input.ts';
import { wgslModule } from './wgsl-source.ts';

/** stepInput, hidden, gateWeights, params, choices */
export const GATE_BINDINGS: readonly KernelAccess[] = ['read', 'read', 'read', 'read-write', 'read-write'];

/** Tokens of a workgroup. */
const TILE = 16;

/** What `wgsl/router/gate.wgsl` wants to know of a model. */
export function gateConstants(model: ModelConfig): Readonly<Record<string, number>> {
  const { numLayers, numExperts, gateWidth, routingFunction = PLAIN } = model;
  const numWeights = numLayers * numExperts * gateWidth;
  const kind = choiceKind(model);
  return {
    H_NUM_TOKENS: Header.numTokens,
    NUM_LAYERS: numLayers,
    GATE_WIDTH: gateWidth,
    LOWEST_LOGIT: lowestLogit(gateWidth),
    TABLE: numWeights,
    BIASES: numWeights + scoreTable(model).length,
    RECIPROCAL_ONE,
    SCORE_SHIFT,
    NUM_EXPERTS: numExperts,
    HAS_BIAS: Number(routingFunction.hasSelectionBias),
    BY_LOGIT: Number(kind === ChoiceKind.logit),
    NEEDS_SUM: Number(kind === ChoiceKind.softmax),
  };
}

/** Files of a model's scores in fixed point. */
export function gateFiles(model: ModelConfig): readonly string[] {
  const isSoftmax = choiceKind(model) === ChoiceKind.softmax;
  return ['router/gate', isSoftmax ? 'router/score-table-softmax' : 'router/score-table'];
}

/** All that gates and fused routers read of a model, in f32: weights `[L, E, G]`, table of scores, selection biases `[L, E]`. */
export function packGate(model: ModelConfig): Uint32Array {
  const weights = gateWeights(model);
  const table = scoreTable(model);
  const bias = selectionBias(model);
  const packed = new Float32Array(Math.ceil((weights.length + table.length + bias.length) / 4) * 4);
  packed.set(weights);
  packed.set(table, weights.length);
  packed.set(bias, weights.length + table.length);
  return new Uint32Array(packed.buffer);
}

/** The gate for at most `chunkTokens` tokens at once. */
export function gateKernel(
  model: ModelConfig,
  chunkTokens: number,
  maxThreads: number,
  reference: Kernel['reference'],
): Kernel {
  const { numLayers, numExperts, topK, gateWidth, routingFunction } = model;
  const quads = Math.ceil(numExperts / 4);
  const span = Math.min(maxThreads, 2 ** Math.ceil(Math.log2(quads)));
  const threads = Math.min(maxThreads, Math.max(16, span * 4));
  const constants = {
    ...gateConstants(model),
    THREADS: threads,
    SPAN: Math.max(span, threads / TILE),
    TILE,
    CHUNK_TOKENS: chunkTokens,
  };
  const files = [
    'mix',
    'router/stats',
    ...gateFiles(model),
    numExperts % 4 === 0 ? 'router/choices-quads' : 'router/choices-words',
    'router/gate-choices',
  ];
  return {
    name: `gate/l${numLayers}-e${numExperts}-k${topK}-g${gateWidth}-${routingFunctionName(routingFunction)}-t${threads}-c${chunkTokens}`,
    wgsl: wgslModule(files, constants),
    bindings: GATE_BINDINGS,
    requires: [],
    reference,
  };
}

/** Workgroups for `numTokens` tokens of a chunk. */
export function gateGrid({ numLayers }: ModelConfig, numTokens: number): readonly [x: number, y: number] {
  return [Math.ceil(numTokens / TILE), numLayers];
}

/** A router that makes its own logits: gate and selection in one kernel. */
export function fusedPorts(model: ModelConfig, reference: Kernel['reference']): RouterPorts {
  const byLogit = choiceKind(model) === ChoiceKind.logit;
  return {
    name: `-fused-l${model.numLayers}-g${model.gateWidth}`,
    files: [
      'mix',
      ...gateFiles(model),
      'router/logits-gate',
      byLogit ? 'router/choose-logit' : 'router/choose-score',
      'router/put-routed-experts',
    ],
    keys: byLogit ? 'choose-logit-keys' : 'choose-score-keys',
    constants: { ...gateConstants(model), WEIGHS: 0 },
    bindings: ['read', 'read', 'read', 'read-write'],
    reference,
  };
}
