/** Pipeline stages: what a split, a hand-over of hidden states or a join of parts must not get wrong. */

import type { SourceMutation } from './source-mutation.ts';

const STAGES = { test: 'test/worker/stages/stages.unit.test.ts' } as const;
const JOINER = { test: 'test/worker/stages/stage-joiner.unit.test.ts' } as const;
const LINKS = { test: 'test/worker/stages/stage-links.unit.test.ts' } as const;

export const stageMutations: readonly SourceMutation[] = [
  {
    name: 'received-hidden-ignored',
    defect: 'a stage goes on with its own hidden states, whatever it received',
    file: 'src/kernels/model/fold/fold.ts',
    find: 'if (x === received[2 * row] && y === received[2 * row + 1]) continue;',
    replace: 'if (x >= 0) continue;',
    killedBy: STAGES,
  },
  {
    name: 'hidden-half-sent',
    defect: 'the second word of a hidden state is sent as the first',
    file: 'src/worker/pipeline/step-runner.ts',
    find: 'sent[2 * row + 1] = states[HIDDEN_WORDS * row + 1]!;',
    replace: 'sent[2 * row + 1] = states[HIDDEN_WORDS * row]!;',
    killedBy: STAGES,
  },
  {
    name: 'stage-gate-of-the-first',
    defect: 'the gate of each stage has the weights of the model’s first layers',
    file: 'src/kernels/model/gate/gate.ts',
    find: 'const firstWord = (firstLayer * numExperts * gateWidth) / 8;',
    replace: 'const firstWord = 0 * firstLayer;',
    killedBy: STAGES,
  },
  {
    name: 'stage-first-layer-forgotten',
    defect: 'each stage takes itself for the first',
    file: 'src/worker/pipeline/stages/stage-plan.ts',
    find: 'firstLayer += stage.numLayers;',
    replace: 'firstLayer += 0;',
    killedBy: STAGES,
  },
  {
    name: 'layers-left-over-to-the-last',
    defect: 'the last stage, which also samples, gets the layers that are left over',
    file: 'src/worker/pipeline/stages/stage-plan.ts',
    find: 'split[numStages - 2 - i]! += 1;',
    replace: 'split[numStages - 1 - i]! += 1;',
    killedBy: STAGES,
  },
  {
    name: 'sampled-tokens-untold',
    defect: 'stages are told the token before the one that was sampled last',
    file: 'src/engine/new-tokens.ts',
    find: 'tokens.tokenIds[numTokens++] = tokenIds[position]!;',
    replace: 'tokens.tokenIds[numTokens++] = tokenIds[position - 1]!;',
    killedBy: STAGES,
  },
  {
    name: 'lost-part-unnoticed',
    defect: 'rows that a stage did not deliver are not said to be missing',
    file: 'src/worker/pipeline/stages/stage-joiner.ts',
    find: 'return { ...deltas, missing: missingSpans(all, deltas) };',
    replace: 'missingSpans(all, deltas); return deltas;',
    killedBy: JOINER,
  },
  {
    name: 'lost-part-waited-for',
    defect: 'deltas goes on waiting for rows that a stage did not deliver',
    file: 'src/capture/deltas/prefix-rows/engine-half.ts',
    find: 'if (deltas.missing !== undefined) this.#leaveOut(deltas.missing, stepId);',
    replace: '',
    killedBy: STAGES,
  },
  {
    name: 'part-taken-twice',
    defect: 'a part that comes a second time takes the place of the first, without a word',
    file: 'src/worker/pipeline/stages/stage-joiner.ts',
    find: 'if (stage === undefined || parts.has(firstLayer)) {',
    replace: 'if (stage === undefined) {',
    killedBy: JOINER,
  },
  {
    name: 'parts-of-any-step',
    defect: 'outputs of different steps are joined',
    file: 'src/worker/pipeline/stages/stage-joiner.ts',
    find: 'for (const [stage, output] of outputs.entries()) requireSameStep(last, output, stage);',
    replace: '',
    killedBy: JOINER,
  },
  {
    name: 'hidden-left-in-its-place',
    defect: 'a reader leaves its place full: the step that needs it again is refused',
    file: 'src/worker/pipeline/stages/stage-links.ts',
    find: 'Atomics.store(this.words, at, State.empty);',
    replace: '',
    killedBy: LINKS,
  },
  {
    name: 'hidden-of-any-step',
    defect: 'a stage takes hidden states for those of its step, whatever step they are of',
    file: 'src/worker/pipeline/stages/stage-links.ts',
    find: 'if (state === State.closed || found !== stepId) {',
    replace: 'if (state === State.closed) {',
    killedBy: LINKS,
  },
  {
    name: 'stages-for-any-design',
    defect: 'a design whose rows cannot be joined starts on stages',
    file: 'src/host/design-session.ts',
    find: 'requireStages(design);',
    replace: '',
    killedBy: { test: 'test/host/engine.integration.test.ts' },
  },
];
