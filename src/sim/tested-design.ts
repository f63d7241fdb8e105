/** What a storm tests: a design under one of its policies, with what a mutant changes of it and of its surroundings. */

import type { CaptureEngineHalf, CaptureWorkerContext, CaptureWorkerHalf } from '../contract/capture.ts';
import type { EngineConfig, ModelConfig, PrefixRows } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import { type DeclaredGap, type Design, designByName, designNames } from '../capture/designs.ts';
import { prefixRowsByName, prefixRowsNames, prefixRowsPolicies } from '../capture/deltas/prefix-rows.ts';
import { strictDesign } from '../capture/guard/strict-design.ts';
import type { KernelSet } from '../kernels/model/kernel-set.ts';
import type { VirtualLock } from './virtual/virtual-lock.ts';

/** What a mutant changes. Parts that are absent stay as they are. */
export type Mutation = Readonly<{
  engineHalf?: (
    half: CaptureEngineHalf,
    model: ModelConfig,
    engine: EngineConfig,
    lock: VirtualLock,
  ) => CaptureEngineHalf;
  workerHalf?: (half: CaptureWorkerHalf, context: CaptureWorkerContext) => CaptureWorkerHalf;
  kernels?: (kernels: KernelSet, model: ModelConfig) => KernelSet;
  /** A worker's output on its way to the engine. */
  output?: (output: ModelRunnerOutput, plan: SchedulerOutput) => ModelRunnerOutput;
  /** The defect is one of two engines: storms have a prefill engine in front. */
  inPd?: true;
  /** The defect is one of KV that is kept outside the device: storms have it. */
  inOffload?: true;
  /** The defect is one of a pipeline: storms run on stages. */
  inPipeline?: true;
  /** Changes the code under test for the time of a run; returns the function that changes it back. */
  install?: () => () => void;
}>;

/** A design with the laws that it gives up and, of a mutant, what is broken. */
export type TestedDesign = Readonly<{
  /** `deltas`, or with a policy `deltas/share`. */
  name: string;
  design: Design;
  gaps: readonly DeclaredGap[];
  prefixRows: PrefixRows | null;
  mutation: Mutation;
}>;

const NO_MUTATION: Mutation = {};

/** The gap of a policy that hits blocks without rows: it leaves those rows out on purpose. */
const CACHED_ROWS_GAP: DeclaredGap = {
  law: 'L1',
  reason: 'under this policy rows of prefix-cached tokens may be missing, and are reported so',
  missing: 'prefix-hit',
};

/** A design as it is: a built-in one, or one of the caller's own, whose hooks may return only what they may. */
export function testedDesignOf(given: Design): TestedDesign {
  const isBuiltIn = (designNames as readonly string[]).includes(given.name);
  const design = isBuiltIn ? given : strictDesign(given);
  return { name: design.name, design, gaps: design.gaps, prefixRows: null, mutation: NO_MUTATION };
}

/**
 * Finds a tested design by its name: a design's, or `deltas/` and a prefix-rows policy. Throws UNKNOWN_NAME, with the
 * names that exist.
 */
export function testedDesignByName(name: string): TestedDesign {
  const slash = name.indexOf('/');
  if (slash < 0) return testedDesignOf(designByName(name));
  const design = designByName(name.slice(0, slash));
  if (design.name !== 'deltas') throw RoutedExpertsError.of('UNKNOWN_NAME', 'design', name, testedDesignNames);
  const prefixRows = prefixRowsByName(name.slice(slash + 1));
  const gaps = prefixRowsPolicies[prefixRows].recomputes ? design.gaps : [...design.gaps, CACHED_ROWS_GAP];
  return { name, design, gaps, prefixRows, mutation: NO_MUTATION };
}

/** Every design, and `deltas` under each of its other policies. */
export const testedDesignNames: readonly string[] = [
  ...designNames,
  ...prefixRowsNames.filter((policy) => policy !== 'complete').map((policy) => `deltas/${policy}`),
];

export function mutated(
  tested: TestedDesign,
  name: string,
  mutation: Mutation,
  gaps?: readonly DeclaredGap[],
): TestedDesign {
  return { ...tested, name, mutation, gaps: gaps ?? tested.gaps };
}
