import { analysisMutations } from './analysis.ts';
import { batchQueueMutations } from './batch-queue.ts';
import { benchMutations } from './bench.ts';
import { campaignMutations } from './campaign.ts';
import { captureMutations } from './capture.ts';
import { clockMutations } from './clock.ts';
import { clusterMutations } from './cluster.ts';
import { dialectMutations } from './dialects.ts';
import { libraryMutations } from './library.ts';
import { lockstepMutations } from './lockstep.ts';
import { handoverMutations } from './handover.ts';
import { metricsMutations } from './metrics.ts';
import { offloadMutations } from './offload.ts';
import { ownDesignMutations } from './own-designs.ts';
import { pdMutations } from './pd.ts';
import { pipelineMutations } from './pipeline.ts';
import { prefixMutations } from './prefix.ts';
import { scheduleMutations } from './schedule.ts';
import { serveMutations } from './serve.ts';
import type { SourceMutation } from './source-mutation.ts';
import { stageMutations } from './stages.ts';
import { vllmFrontendMutations } from './vllm-frontend.ts';
import { workersMutations } from './workers.ts';

export const allMutations: readonly SourceMutation[] = [
  ...analysisMutations,
  ...batchQueueMutations,
  ...benchMutations,
  ...campaignMutations,
  ...captureMutations,
  ...clockMutations,
  ...clusterMutations,
  ...dialectMutations,
  ...libraryMutations,
  ...lockstepMutations,
  ...handoverMutations,
  ...metricsMutations,
  ...offloadMutations,
  ...ownDesignMutations,
  ...pdMutations,
  ...pipelineMutations,
  ...prefixMutations,
  ...scheduleMutations,
  ...serveMutations,
  ...stageMutations,
  ...vllmFrontendMutations,
  ...workersMutations,
];
