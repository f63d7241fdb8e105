import { pipelineMutations } from './pipeline.ts';
import { prefixMutations } from './prefix.ts';
import { scheduleMutations } from './schedule.ts';
import { serveMutations } from './serve.ts';
import type { SourceMutation } from './source-mutation.ts';

export const allMutations: readonly SourceMutation[] = [
  ...pipelineMutations,
  ...prefixMutations,
  ...scheduleMutations,
  ...serveMutations,
];
