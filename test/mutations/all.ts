import { pdMutations } from './pd.ts';
import { pipelineMutations } from './pipeline.ts';
import { prefixMutations } from './prefix.ts';
import { scheduleMutations } from './schedule.ts';
import { serveMutations } from './serve.ts';
import type { SourceMutation } from './source-mutation.ts';

export const allMutations: readonly SourceMutation[] = [
  ...pdMutations,
  ...pipelineMutations,
  ...prefixMutations,
  ...scheduleMutations,
  ...serveMutations,
];
