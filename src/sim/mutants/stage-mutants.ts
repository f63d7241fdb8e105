/** Defects of a pipeline: parts of rows that are put together wrongly, and what goes wrong between two stages. */

import type { ModelConfig } from '../../contract/config.ts';
import type { ModelRunnerOutput, RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import { ForwardPass } from '../../kernels/model/forward-pass.ts';
import type { KernelSet, StepKernel } from '../../kernels/model/kernel-set.ts';
import { route } from '../../kernels/model/route/route.ts';
import { Header } from '../../kernels/model/step-input.ts';
import { StageJoiner } from '../../worker/pipeline/stages/stage-joiner.ts';
import { routerOf } from '../virtual/sim-kernels.ts';
import type { Mutant } from './mutant.ts';

/** Changes the outputs of a step's stages before they are joined. */
function installJoin(change: (outputs: readonly ModelRunnerOutput[]) => readonly ModelRunnerOutput[]): () => void {
  const original = StageJoiner.prototype.join;
  StageJoiner.prototype.join = function join(this: StageJoiner, outputs) {
    return original.call(this, change(outputs));
  };
  return () => {
    StageJoiner.prototype.join = original;
  };
}

const withRows = (output: ModelRunnerOutput, rows: RoutedExpertDeltas | null): ModelRunnerOutput => ({
  ...output,
  routedExpertDeltas: rows,
});

/** The part of the first stage is taken for that of each stage behind it, too: rows are whole once it has come. */
function countedTwice(outputs: readonly ModelRunnerOutput[]): readonly ModelRunnerOutput[] {
  const first = outputs.find(({ routedExpertDeltas }) => routedExpertDeltas !== null)?.routedExpertDeltas;
  return outputs.map((output) => {
    const { routedExpertDeltas: own } = output;
    if (!first || own === null) return output;
    return withRows(output, own.firstLayer === undefined ? first : { ...first, firstLayer: own.firstLayer });
  });
}

/** vllm#35623: the last rank has zeros where the layers of other stages are, and hands the rows out as whole. */
function zerosForTheRest(outputs: readonly ModelRunnerOutput[]): readonly ModelRunnerOutput[] {
  const last = outputs.findLastIndex(({ routedExpertDeltas }) => routedExpertDeltas !== null);
  return outputs.map((output, stage) => {
    const { routedExpertDeltas: own } = output;
    if (own === null || stage === last) return output;
    return withRows(output, { ...own, rows: new Uint8Array(own.rows.length) });
  });
}

function lastPartLost(outputs: readonly ModelRunnerOutput[]): readonly ModelRunnerOutput[] {
  const last = outputs.findLastIndex(({ routedExpertDeltas }) => routedExpertDeltas !== null);
  return outputs.map((output, stage) => (stage === last && output.stepId % 3 === 2 ? withRows(output, null) : output));
}

/** The first stage's rows of a step are joined with the other stages' of the step behind it, row for row. */
function installPartsOfAnotherStep(): () => void {
  let before: RoutedExpertDeltas | null = null;
  return installJoin((outputs) => {
    const [first, ...others] = outputs;
    const { routedExpertDeltas: own } = first!;
    if (own === null) return outputs;
    const earlier = before !== null && before.numRows === own.numRows ? before.rows : own.rows;
    before = { ...own, rows: own.rows.slice() };
    return [withRows(first!, { ...own, rows: earlier }), ...others];
  });
}

/** A stage goes on with the hidden states that it received for the step before. */
function installHiddenOfAnotherStep(): () => void {
  const original = ForwardPass.prototype.receive;
  let before: Uint32Array | null = null;
  ForwardPass.prototype.receive = function receive(this: ForwardPass, hidden) {
    const given = before !== null && before.length === hidden.length ? before : hidden;
    before = hidden.slice();
    original.call(this, given);
  };
  return () => {
    ForwardPass.prototype.receive = original;
  };
}

const stepKernel = (of: StepKernel, reference: StepKernel['kernel']['reference']): StepKernel => ({
  ...of,
  kernel: { ...of.kernel, name: `${of.kernel.name}/mutated`, reference },
});

/** Every stage routes its first layer as the model's first. */
function layersFromZero(kernels: KernelSet, model: ModelConfig): KernelSet {
  if (!model.firstLayer) return kernels;
  const router = routerOf({ ...model, firstLayer: 0 });
  return { ...kernels, route: stepKernel(kernels.route, (b) => route(router, b[0]!, b[1]!, b[3]!)) };
}

/** A stage behind another loses one change of its block table in some steps. */
function staleTable(kernels: KernelSet): KernelSet {
  let numPasses = 0;
  const attendWrite = stepKernel(kernels.attendWrite, (buffers, workgroups) => {
    const input = buffers[0]!.slice();
    numPasses += 1;
    if (numPasses % 4 === 3 && input[Header.numTableUpdates]! > 0) input[Header.numTableUpdates]! -= 1;
    kernels.attendWrite.kernel.reference([input, ...buffers.slice(1)], workgroups);
  });
  return { ...kernels, attendWrite };
}

export const stageMutants: readonly Mutant[] = [
  {
    number: 110,
    name: 'stage-part-counted-twice',
    defect: 'the part of the first stage counts for the others too, and rows are handed out as whole',
    source: 'parts counted, and not told apart by their first layer',
    base: 'deltas',
    mutation: { inPipeline: true, install: () => installJoin(countedTwice) },
  },
  {
    number: 111,
    name: 'stage-part-lost',
    defect: 'the part of the last stage does not reach the engine in some steps',
    source: 'an output of one rank that is not waited for',
    base: 'deltas',
    mutation: { inPipeline: true, install: () => installJoin(lastPartLost) },
  },
  {
    number: 112,
    name: 'stage-zeros-for-the-rest',
    defect: 'the last rank has zeros in the place of the layers of other stages, and its rows count as whole',
    source: 'vllm#35623',
    base: 'deltas',
    mutation: { inPipeline: true, install: () => installJoin(zerosForTheRest) },
  },
  {
    number: 113,
    name: 'stage-parts-of-another-step',
    defect: 'the first stage’s rows of a step are joined with the others’ of the step behind it',
    source: 'up to P steps in flight, whose parts meet in the order of their arrival',
    base: 'deltas',
    mutation: { inPipeline: true, install: installPartsOfAnotherStep },
  },
  {
    number: 114,
    name: 'stage-hidden-of-another-step',
    defect: 'a stage goes on with the hidden states that it received for another step',
    source: 'one buffer for the hidden states of all steps in flight',
    base: 'deltas',
    mutation: { inPipeline: true, install: installHiddenOfAnotherStep },
  },
  {
    number: 115,
    name: 'stage-layers-from-zero',
    defect: 'each stage counts its layers from 0, and routes them as those of the first',
    source: 'vllm#39568 (review): the layer id of a stage is not that of the model',
    base: 'deltas',
    mutation: { inPipeline: true, kernels: layersFromZero },
  },
  {
    number: 116,
    name: 'stage-stale-table',
    defect: 'the block table of a stage behind the first misses a change',
    source: 'each stage keeps a block table of its own',
    base: 'deltas',
    mutation: {
      inPipeline: true,
      kernels: (kernels, model) =>
        model.firstLayer === undefined || model.firstLayer === 0 ? kernels : staleTable(kernels),
    },
  },
];
