/** Gate and selection in one kernel. */

import type { ModelConfig, RouterConfig } from '../../../contract/config.ts';
import type { Kernel } from '../../../contract/device.ts';
import type { RouterPorts } from '../../router/router-kernels.ts';
import { assembleRouter, routerKernel, routerWorkgroups } from '../../router/router-kernels.ts';
import { ChoiceKind, choiceKind } from '../gate/expert-scores.ts';
import { gateConstants, gateFiles, gateName } from '../gate/gate-kernel.ts';
import type { FusedVariant } from './engine-router.ts';
import { engineVariantName, selectionOf, weightsPerWord } from './engine-router.ts';

const OUTPUTS = {
  modular: { files: ['model/route/put-routed-experts'], bindings: ['read-write'] },
  monolithic: { files: ['model/route/put-expert-output', 'model/route/no-routing-replay'], bindings: ['read-write'] },
  replay: {
    files: ['model/route/put-expert-output', 'model/route/routing-replay-out'],
    bindings: ['read-write', 'read-write'],
  },
} as const;

/** Bindings: stepInput, hidden, gateWeights, then what a router of that kind puts out. */
export function fusedKernel(
  model: ModelConfig,
  variant: FusedVariant,
  router: RouterConfig,
  maxTokens: number,
  reference: Kernel['reference'],
): Kernel {
  const output = router.kind === 'modular' ? 'modular' : router.hasRoutingReplay ? 'replay' : 'monolithic';
  const byLogit = choiceKind(model) === ChoiceKind.logit;
  const ports: RouterPorts = {
    // Kernels that know the layout of `routing_replay_out` are made for a number of rows.
    name: `-fused-${gateName(model)}-${output}${output === 'replay' ? `-m${maxTokens}` : ''}`,
    files: [...gateFiles(model), ...logitFiles(variant, byLogit), ...OUTPUTS[output].files],
    keys: byLogit ? 'choose-logit-keys' : 'choose-score-keys',
    constants: { ...gateConstants(model, weightsPerWord(variant)), MAX_TOKENS: maxTokens, WEIGHS: 0 },
    bindings: ['read', 'read', 'read', ...OUTPUTS[output].bindings],
    reference,
  };
  const selection = selectionOf(model);
  const name = engineVariantName(variant);
  const { threads: THREADS } = variant;
  switch (variant.algorithm) {
    case 'portable':
      return routerKernel(selection, variant, ports);
    case 'pairs': {
      const files = ['router/wgsl/select/list', 'model/route/fused-pairs'];
      return assembleRouter(selection, { name, files, constants: { LIST: variant.list, THREADS } }, ports);
    }
    case 'rounds': {
      const { leastLanes, lanes: LANES, keys: KEYS_PER_LANE } = variant;
      const constants = { THREADS, LANES, KEYS_PER_LANE, SLOTS: Math.ceil(model.topK / leastLanes) };
      const kernel = assembleRouter(selection, { name, files: ['model/route/fused-rounds'], constants }, ports);
      return { ...kernel, requires: ['subgroups'] };
    }
    default:
      return variant satisfies never;
  }
}

/** `portable` reads a logit at a time; the other algorithms compute theirs themselves. */
function logitFiles({ algorithm }: FusedVariant, byLogit: boolean): readonly string[] {
  if (algorithm !== 'portable') return [];
  return ['model/route/logits-gate', `router/wgsl/choose/${byLogit ? 'choose-logit' : 'choose-score'}`];
}

export function fusedGrid(
  variant: FusedVariant,
  numTokens: number,
  numLayers: number,
): readonly [x: number, y: number] {
  switch (variant.algorithm) {
    case 'pairs':
      return [Math.ceil(numTokens / (4 * variant.threads)), numLayers];
    case 'rounds':
      return [Math.ceil(numTokens / Math.max(1, variant.threads / variant.leastLanes)), numLayers];
    case 'portable':
      return [routerWorkgroups(variant, numTokens * numLayers), 1];
    default:
      return variant satisfies never;
  }
}
