/** The stages of a storm: a pipeline of ranks, each of which has some of the model's layers. */

import type { ModelConfig } from '../../contract/config.ts';
import { stagesOf, type Stage } from '../../worker/pipeline/stages/stage-plan.ts';

/** Durations are in ticks. */
export type StageScenario = Readonly<{
  /** Layers of each stage, dense ones included. */
  split: readonly number[];
  /** Passes of this stage take longer by the factor. */
  slowStage: number;
  slowFactor: number;
  /** Hidden states are under way to the next stage for `[handOver, handOver + handOverJitter]`. */
  handOver: number;
  handOverJitter: number;
}>;

type Staged = Readonly<{ model: ModelConfig; numRanks: number; stages?: StageScenario }>;

/** `null`: each rank has all layers. */
export function stagesOfScenario({ model, stages }: Staged): readonly Stage[] | null {
  return stages === undefined ? null : stagesOf(model, stages.split);
}

/** Of all stages; `numRanks` are those of one. */
export function countRanks({ numRanks, stages }: Staged): number {
  return numRanks * (stages?.split.length ?? 1);
}

/** Throws what `bad` makes of a problem, and BAD_VALUE for a split that is none of the model. */
export function checkStageScenario(staged: Staged, bad: (problem: string) => Error): void {
  const { stages } = staged;
  if (typeof stages !== 'object' || stages === null || !Array.isArray(stages.split)) throw bad('"stages" has no split');
  for (const name of ['slowStage', 'slowFactor', 'handOver', 'handOverJitter'] as const) {
    if (typeof stages[name] !== 'number' || !(stages[name] >= 0)) throw bad(`"stages.${name}" is no number ≥ 0`);
  }
  stagesOfScenario(staged);
}
