/** How a model's layers are shared out to the stages of a pipeline. */

import type { ModelConfig } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { StageEnds } from '../../../kernels/model/forward-pass.ts';
import { countModelLayers, routerLayers } from '../../../kernels/model/model-layers.ts';

/**
 *     layers of the model   0 d │ 1 d   2   3 │ 4   5        split = [1, 3, 2]; 0 and 1 are dense
 *     columns of a row          │       0   1 │ 2   3
 *     firstLayer, numLayers  0, 0      0, 2      2, 2
 */
export type Stage = Readonly<{
  /** The model's layers `[from, to)`. */
  from: number;
  to: number;
  /** Those of them with a router are the columns `[firstLayer, firstLayer + numLayers)` of a row. */
  firstLayer: number;
  numLayers: number;
  ends: StageEnds;
  /** The model as the stage has it: its own layers with a router. */
  model: ModelConfig;
}>;

/**
 * vLLM's `get_pp_indices`: as even as can be. Layers that are left over go to the stages before the last, which also
 * samples.
 *
 * @throws BAD_VALUE for more stages than layers
 */
export function evenSplit(model: ModelConfig, numStages: number): number[] {
  const numLayers = countModelLayers(model);
  if (!Number.isInteger(numStages) || numStages < 1 || numStages > numLayers) {
    const wanted = `stages in [1, ${numLayers}], the layers of ${model.name}`;
    throw RoutedExpertsError.of('BAD_VALUE', '--pipeline-parallel (pipelineParallel)', numStages, wanted);
  }
  const split = Array<number>(numStages).fill(Math.floor(numLayers / numStages));
  for (let i = 0; i < numLayers % numStages; i++) split[numStages - 2 - i]! += 1;
  return split;
}

/** Throws BAD_VALUE for a split that is not all layers of the model, or that leaves a stage without any. */
export function stagesOf(model: ModelConfig, split: readonly number[]): readonly Stage[] {
  const numLayers = countModelLayers(model);
  const sum = split.reduce((layers, count) => layers + count, 0);
  if (!split.every((count) => Number.isInteger(count) && count >= 1) || sum !== numLayers) {
    const wanted = `layers of each stage, 1 at least, together the ${numLayers} of ${model.name}`;
    throw RoutedExpertsError.of('BAD_VALUE', '--pipeline-split (pipelineSplit)', split.join(','), wanted);
  }
  const routers = routerLayers(model);
  const { denseLayers: _, ...routed } = model;
  let to = 0;
  let firstLayer = 0;
  return split.map((count, i) => {
    const from = to;
    to += count;
    const isOwn = (layer: number): boolean => layer >= from && layer < to;
    const stage = { from, to, firstLayer, numLayers: routers.filter(isOwn).length };
    firstLayer += stage.numLayers;
    const { numLayers: own } = stage;
    return {
      ...stage,
      ends: { receives: i > 0, sends: i < split.length - 1 },
      model: { ...routed, numLayers: own, firstLayer: stage.firstLayer },
    };
  });
}
