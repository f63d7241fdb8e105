/**
 * What a design holds after a drain, by the heap and not by its own count (L7): waves of requests come and go, and the
 * memory in use after each garbage collection stays the same. A half that keeps ended requests is found, whatever its
 * `liveCounts` says.
 */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { designs, type Design } from '../../src/capture/designs.ts';
import type { DesignName, EngineConfig, ModelConfig, WorkerConfig } from '../../src/contract/config.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { InlineExecutor } from '../worker/inline-executor.ts';
import { ModelRunner } from '../../src/worker/model-runner.ts';
import { random, type Random } from '../../src/workload/random.ts';
import { memorySharedRows } from './memory-shared-rows.ts';
import { BASE_ENGINE } from './scenarios.ts';

const model: ModelConfig = { ...modelPreset('tiny'), name: 'deep', numLayers: 72 };
/** A pool that the requests of a wave overrun: some are preempted. */
const engine: EngineConfig = {
  ...BASE_ENGINE,
  asyncScheduling: true,
  maxNumBatchedTokens: 96,
  maxModelLen: 160,
  numBlocks: 96,
};
const DEPTH = 2;
const PROMPT = 96;
const REQUESTS_PER_WAVE = 16;
const WARM_UP_WAVES = 4;
const WAVES = 6;
const ROW_BYTES = model.numLayers * model.topK;
/** A third of the rows of all requests: several times what the heap grows by itself. */
const MOST_GROWTH = (WAVES * REQUESTS_PER_WAVE * PROMPT * ROW_BYTES) / 3;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Bytes in use, on the heap and in buffers outside it. */
function bytesInUse(): number {
  collectGarbage();
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** An engine through which requests go; keeps nothing of them. */
class Waves {
  readonly #core: EngineCore;
  readonly #executor: InlineExecutor;
  readonly #random: Random = random(1, 'live-heap');
  #numRequests = 0;

  private constructor(core: EngineCore, executor: InlineExecutor) {
    this.#core = core;
    this.#executor = executor;
  }

  static async start(design: Design): Promise<Waves> {
    const config: WorkerConfig = {
      rank: 0,
      numRanks: 1,
      model,
      engine,
      design: design.name as DesignName,
      device: 'cpu',
      adapter: null,
      queueDepth: DEPTH,
      ballastMs: 0,
      sharedMemory: null,
      fault: null,
    };
    const resources = memorySharedRows(engine.numBlocks * engine.blockSize * ROW_BYTES);
    const device = new CpuDevice();
    const runner = await ModelRunner.create(device, config, wgslKernels, design, resources);
    const core = new EngineCore(engine, design.engineHalf(model, engine, resources));
    return new Waves(core, new InlineExecutor(runner, device.info));
  }

  /** Serves a wave to its end, aborts some of it, and empties the prefix cache, with which rows may stay. */
  async run(): Promise<void> {
    for (let i = 0; i < REQUESTS_PER_WAVE; i++) this.#add();
    const inFlight: Promise<ModelRunnerOutput>[] = [];
    for (let isOver = false; !isOver;) {
      const step = inFlight.length < DEPTH ? this.#core.beginStep() : null;
      if (step !== null) inFlight.push(this.#executor.execute(step));
      else if (inFlight.length > 0) {
        if (this.#random.below(12) === 0) this.#core.abort(this.#core.requestIds.slice(-1));
        const output = await inFlight.shift()!;
        this.#core.finishStep(output);
        this.#executor.recycle(output);
      } else isOver = true;
    }
    expect(this.#core.isIdle).toBe(true);
    expect(this.#core.resetPrefixCache({ resetRunning: false })).toBe(true);
  }

  async close(): Promise<void> {
    await this.#executor.shutdown();
  }

  #add(): void {
    this.#core.addRequest({
      requestId: `r${this.#numRequests}`,
      promptTokenIds: Uint32Array.from({ length: PROMPT }, (_, i) =>
        i < PROMPT / 2 ? i : this.#random.below(model.vocabSize),
      ),
      sampling: {
        maxTokens: 12,
        minTokens: 0,
        eosTokenId: null,
        stopTokenIds: [],
        returnRoutedExperts: true,
        routedExpertsPromptStart: 0,
      },
      priority: 0,
      arrivalTime: this.#numRequests++,
      cacheSalt: null,
    });
  }
}

/** By how much the memory in use grows over some waves, once everything has found its size. */
async function growth(design: Design): Promise<number> {
  const waves = await Waves.start(design);
  try {
    for (let i = 0; i < WARM_UP_WAVES; i++) await waves.run();
    const before = bytesInUse();
    for (let i = 0; i < WAVES; i++) await waves.run();
    return bytesInUse() - before;
  } finally {
    await waves.close();
  }
}

/** Keeps the rows of each ended request for ever, and counts as if it did not. */
function leaky(design: Design): Design {
  return {
    ...design,
    engineHalf: (...args) => {
      const half = design.engineHalf(...args)!;
      const take = half.take.bind(half);
      const kept: unknown[] = [];
      half.take = (request, numNewTokens, finishReason) => {
        const rows = take(request, numNewTokens, finishReason);
        kept.push(rows?.chunks);
        return rows;
      };
      return half;
    },
  };
}

describe.each(Object.values(designs))('$name', (design) => {
  test('holds nothing of requests that are over', async () => {
    expect(await growth(design)).toBeLessThan(MOST_GROWTH);
  });

  test.skipIf(design.name === 'off')('kept rows of ended requests are found', async () => {
    expect(await growth(leaky(design))).toBeGreaterThan(MOST_GROWTH);
  });
});
