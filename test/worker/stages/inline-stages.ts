/** A pipeline of stages in the test's own thread: a model runner for each, on the cpu device, and the links. */

import { designByName } from '../../../src/capture/designs.ts';
import type { EngineConfig, ModelConfig, WorkerConfig } from '../../../src/contract/config.ts';
import type { EngineRequest } from '../../../src/contract/request.ts';
import type { RoutedRows } from '../../../src/contract/routed-rows.ts';
import { EngineCore } from '../../../src/engine/engine-core.ts';
import { CpuDevice } from '../../../src/kernels/device/cpu-device.ts';
import type { KernelSetFactory } from '../../../src/kernels/model/kernel-set.ts';
import { wgslKernels } from '../../../src/kernels/model/wgsl-kernels.ts';
import { ModelRunner } from '../../../src/worker/model-runner.ts';
import { RankStages } from '../../../src/worker/thread/rank-stages.ts';
import { engineConfig } from '../../kernels/harness.ts';

export type Served = Readonly<{ tokens: number[]; rows: RoutedRows }>;

const deltas = designByName('deltas');
const NO_RESOURCES = {
  sharedRows: (): never => {
    throw new Error('no shared memory here');
  },
};

/**
 * Serves the prompts to their end, with as many steps in flight as there are stages. `kernelsOf`: those of a stage, in
 * place of its own. `loses`: whether the rows of a stage do not come in a step.
 */
export async function serveOnStages(
  model: ModelConfig,
  split: readonly number[],
  {
    prompts,
    maxTokens,
    kernelsOf = () => wgslKernels,
    loses = () => false,
    engine: overrides = {},
  }: Readonly<{
    prompts: readonly (readonly number[])[];
    maxTokens: number;
    kernelsOf?: (stage: number) => KernelSetFactory;
    loses?: (stage: number, stepId: number) => boolean;
    engine?: Partial<EngineConfig>;
  }>,
): Promise<Served[]> {
  const numStages = split.length;
  const engine = engineConfig({ ...overrides, pipelineParallelSize: numStages });
  const stages = new RankStages(configOf(model, engine, numStages), split);
  const runners = await Promise.all(
    split.map((_, rank) =>
      ModelRunner.create(new CpuDevice(), stages.configOf(rank), kernelsOf(rank), deltas, NO_RESOURCES),
    ),
  );
  const core = new EngineCore(engine, deltas.engineHalf(model, engine, NO_RESOURCES));
  const served = prompts.map((): { tokens: number[]; rows: RoutedRows | null } => ({ tokens: [], rows: null }));
  for (const [i, prompt] of prompts.entries()) core.addRequest(requestOf(i, prompt, maxTokens));
  const inFlight: Promise<Awaited<ReturnType<ModelRunner['execute']>>[]>[] = [];
  while (!core.isIdle || inFlight.length > 0) {
    while (inFlight.length < numStages) {
      const step = core.beginStep();
      if (step === null) break;
      inFlight.push(Promise.all(runners.map((runner) => runner.execute(step))));
    }
    const outputs = (await inFlight.shift()!).map((output, stage) =>
      loses(stage, output.stepId) ? { ...output, routedExpertDeltas: null } : output,
    );
    const joined = stages.join(outputs, () => {});
    for (const { requestId, newTokenIds, routedExperts } of core.finishStep(joined)) {
      served[Number(requestId)]!.tokens.push(...newTokenIds);
      if (routedExperts !== null) served[Number(requestId)]!.rows = routedExperts;
    }
  }
  for (const runner of runners) await runner.close();
  return served.map(({ tokens, rows }) => ({ tokens, rows: rows! }));
}

function configOf(model: ModelConfig, engine: EngineConfig, numRanks: number): Omit<WorkerConfig, 'rank' | 'pipeline'> {
  return {
    numRanks,
    model,
    engine,
    design: 'deltas',
    device: 'cpu',
    adapter: null,
    queueDepth: numRanks,
    ballastMs: 0,
    sharedMemory: null,
    fault: null,
  };
}

function requestOf(i: number, prompt: readonly number[], maxTokens: number): EngineRequest {
  return {
    requestId: String(i),
    promptTokenIds: Uint32Array.from(prompt),
    sampling: {
      maxTokens,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: true,
      routedExpertsPromptStart: 0,
    },
    priority: 0,
    arrivalTime: i,
    cacheSalt: null,
  };
}
