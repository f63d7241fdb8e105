/** Pipeline stages as a caller asks for them, and what follows from them for ranks, scheduler and workers. */

import type { EngineConfig, ModelConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { evenSplit, stagesOf } from '../worker/pipeline/stages/stage-plan.ts';

/** As `createEngine`, `serve` and `bench` are asked; what is absent follows from the rest. */
export type PipelineOptions = Readonly<{
  /** Stages. */
  pipelineParallel?: number | undefined;
  /** Layers of each stage, dense ones included. */
  pipelineSplit?: readonly number[] | undefined;
  /** Ranks in all. */
  numRanks?: number | undefined;
  queueDepth?: number | undefined;
}>;

export type PipelineSettings = Readonly<{
  numRanks: number;
  queueDepth: number;
  /** Absent: each rank has all layers. */
  pipelineSplit?: readonly number[];
  scheduling: Pick<EngineConfig, 'asyncScheduling' | 'pipelineParallelSize'>;
}>;

/**
 * With stages there is a rank for each, and as many steps in flight at most: more would wait for the first stage.
 *
 * @throws BAD_VALUE for more stages than layers, a split that is not that of the model, ranks that the stages cannot
 *   share alike, and more steps in flight than stages
 */
export function pipelineSettings(model: ModelConfig, options: PipelineOptions): PipelineSettings {
  const { pipelineSplit, pipelineParallel = pipelineSplit?.length ?? 1 } = options;
  if (pipelineParallel === 1 && pipelineSplit === undefined) {
    const { numRanks = 1, queueDepth = 2 } = options;
    return { numRanks, queueDepth, scheduling: { asyncScheduling: queueDepth > 1 } };
  }
  const split = pipelineSplit ?? evenSplit(model, pipelineParallel);
  if (split.length !== pipelineParallel) {
    throw bad('--pipeline-split (pipelineSplit)', split.join(','), `layers for each of ${pipelineParallel} stages`);
  }
  stagesOf(model, split);
  const { numRanks = split.length, queueDepth = split.length } = options;
  if (numRanks % split.length !== 0)
    throw bad('--ranks (numRanks)', numRanks, `a multiple of the ${split.length} stages`);
  if (queueDepth > split.length)
    throw bad('--queue-depth (queueDepth)', queueDepth, `at most ${split.length}, a step for each stage`);
  return {
    numRanks,
    queueDepth,
    pipelineSplit: split,
    scheduling: { asyncScheduling: false, pipelineParallelSize: split.length },
  };
}

function bad(name: string, value: unknown, wanted: string): RoutedExpertsError {
  return RoutedExpertsError.of('BAD_VALUE', name, value, wanted);
}
