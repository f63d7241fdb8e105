/** The table of built-in workloads. */

import { RoutedExpertsError } from '../contract/errors.ts';
import { burst } from './burst.ts';
import { chat } from './chat.ts';
import { fixed } from './fixed.ts';
import type { GeneratorOptions } from './generator.ts';
import { rollout } from './rollout.ts';
import type { Workload } from './workload.ts';

export type WorkloadGenerator = Readonly<{
  /** One line, for `--help`. */
  description: string;
  generate: (options: GeneratorOptions) => Workload;
}>;

export type WorkloadName = 'chat' | 'rollout' | 'burst' | 'fixed';

export const workloads: Readonly<Record<WorkloadName, WorkloadGenerator>> = {
  chat: { description: 'conversations of one to three turns under a few shared system prompts', generate: chat },
  rollout: {
    description: 'reinforcement learning: few prompts, many samples of each, long outputs',
    generate: rollout,
  },
  burst: { description: 'requests of one length that all finish in the same step', generate: burst },
  fixed: { description: 'prompts of one length (--prompt-length), of which no two share a prefix', generate: fixed },
};

export const workloadNames: readonly WorkloadName[] = Object.keys(workloads) as WorkloadName[];

/** @throws UNKNOWN_NAME, listing the names there are */
export function findWorkload(name: string): WorkloadGenerator {
  if (!Object.hasOwn(workloads, name)) throw RoutedExpertsError.of('UNKNOWN_NAME', 'workload', name, workloadNames);
  return workloads[name as WorkloadName];
}
