/** An engine with a guarded design and everything that calls a hook: hits, evictions, a preemption, lost workers. */

import type { Design } from '../../../src/capture/designs.ts';
import { RowJoiner } from '../../../src/capture/row-joiner.ts';
import type { ModelConfig, WorkerConfig } from '../../../src/contract/config.ts';
import type { EngineCoreOutput } from '../../../src/contract/engine-core-output.ts';
import { RoutedExpertsError } from '../../../src/contract/errors.ts';
import type { ModelRunnerOutput } from '../../../src/contract/model-runner-output.ts';
import type { RoutedRows } from '../../../src/contract/routed-rows.ts';
import { EngineCore } from '../../../src/engine/engine-core.ts';
import { CpuDevice } from '../../../src/kernels/device/cpu-device.ts';
import { modelPreset } from '../../../src/kernels/model/model-presets.ts';
import { wgslKernels } from '../../../src/kernels/model/wgsl-kernels.ts';
import { InlineExecutor } from '../../worker/inline-executor.ts';
import { ModelRunner } from '../../../src/worker/model-runner.ts';
import { memorySharedRows } from '../memory-shared-rows.ts';
import { BASE_ENGINE } from '../scenarios.ts';

export const model: ModelConfig = modelPreset('tiny');
/** A pool that two of the requests below fill: later ones evict what earlier ones cached. */
const engine = { ...BASE_ENGINE, asyncScheduling: true, numBlocks: 24, maxNumBatchedTokens: 16 };
const DEPTH = 2;

export type Ran = {
  readonly prompt: readonly number[];
  readonly tokens: number[];
  rows: RoutedRows | null;
  finish: string | null;
  failure: RoutedExpertsError | null;
  refusal: RoutedExpertsError | null;
};

export class GuardedEngine {
  readonly core: EngineCore;
  readonly requests: Map<string, Ran> = new Map();
  readonly #design: Design;
  readonly #joiners: Map<string, RowJoiner> = new Map();
  readonly #resources = memorySharedRows(engine.numBlocks * engine.blockSize * model.numLayers * model.topK);
  #executor: InlineExecutor | null = null;
  #inFlight: Promise<ModelRunnerOutput>[] = [];

  constructor(design: Design) {
    this.#design = design;
    this.core = new EngineCore(engine, design.engineHalf(model, engine, this.#resources));
  }

  async startWorker(): Promise<void> {
    const config: WorkerConfig = {
      rank: 0,
      numRanks: 1,
      model,
      engine,
      design: 'file:///mine.ts',
      device: 'cpu',
      adapter: null,
      queueDepth: DEPTH,
      ballastMs: 0,
      sharedMemory: null,
      fault: null,
    };
    const device = new CpuDevice();
    const runner = await ModelRunner.create(device, config, wgslKernels, this.#design, this.#resources);
    this.#executor = new InlineExecutor(runner, device.info);
  }

  add(requestId: string, prompt: readonly number[], returnRoutedExperts: boolean, maxTokens = 10): void {
    const request: Ran = { prompt, tokens: [], rows: null, finish: null, failure: null, refusal: null };
    this.requests.set(requestId, request);
    try {
      this.core.addRequest({
        requestId,
        promptTokenIds: Uint32Array.from(prompt),
        sampling: {
          maxTokens,
          minTokens: 0,
          eosTokenId: null,
          stopTokenIds: [],
          returnRoutedExperts,
          routedExpertsPromptStart: 0,
        },
        priority: 0,
        arrivalTime: this.requests.size,
        cacheSalt: null,
      });
    } catch (error) {
      if (!(error instanceof RoutedExpertsError)) throw error;
      request.refusal = error;
    }
  }

  /** Runs until nothing is left to do, or for so many outputs. A run that makes no progress fails. */
  async run(mostOutputs = 500): Promise<void> {
    for (let finished = 0; finished < mostOutputs;) {
      const step = this.#inFlight.length < DEPTH ? this.core.beginStep() : null;
      if (step !== null) this.#inFlight.push(this.#executor!.execute(step));
      else if (this.#inFlight.length === 0) break;
      else {
        const output = await this.#inFlight.shift()!;
        for (const each of this.core.finishStep(output)) this.#take(each);
        this.#executor!.recycle(output);
        finished++;
      }
      this.core.checkIntegrity();
    }
    if (mostOutputs === 500 && !this.core.isIdle) throw new Error('500 outputs, and the engine is not idle');
  }

  abort(requestId: string): void {
    for (const output of this.core.abort([requestId])) this.#take(output);
  }

  /** Steps in flight are lost, and new workers start. */
  async loseWorkers(): Promise<void> {
    await Promise.allSettled(this.#inFlight);
    this.#inFlight = [];
    await this.#executor!.shutdown();
    await this.startWorker();
    this.core.onWorkersLost();
  }

  async close(): Promise<Readonly<Record<string, unknown>>> {
    const { numUsedBlocks, numRunning, numWaiting, capture } = this.core.stats();
    const worker = await this.#executor!.liveCounts();
    await this.#executor!.shutdown();
    const half = { requests: capture?.requests ?? 0, bytes: capture?.bytes ?? 0 };
    return { numUsedBlocks, numRunning, numWaiting, half, worker };
  }

  #take({ requestId, newTokenIds, finishReason, routedExperts, failure }: EngineCoreOutput): void {
    const request = this.requests.get(requestId)!;
    if (request.finish !== null) throw new Error(`an output of ${requestId} after its last one`);
    request.tokens.push(...newTokenIds);
    const joiner = this.#joiners.get(requestId) ?? new RowJoiner();
    this.#joiners.set(requestId, joiner);
    if (routedExperts !== null) joiner.add(routedExperts);
    request.finish = finishReason;
    if (finishReason !== null) request.rows = joiner.rows;
    request.failure = failure ?? null;
  }
}

export const NOTHING_LEFT = {
  numUsedBlocks: 0,
  numRunning: 0,
  numWaiting: 0,
  half: { requests: 0, bytes: 0 },
  worker: { batchEntries: 0, ringSlots: 0, lentBuffers: 0, capture: { requests: 0, bytes: 0 } },
} as const;
