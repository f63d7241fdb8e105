// Rows of other engines, dummy rows and padding, which the router of a data-parallel rank sees, are never handed out as
// a request's own (L3): every design, under every dispatch, two engines of two ranks that meet before and after each
// pass.

import { expect, test } from 'vitest';
import { designs } from '../../../src/capture/designs.ts';
import { RowJoiner } from '../../../src/capture/row-joiner.ts';
import type { ServedRequest } from '../../../src/cli/bench/serve-workload.ts';
import { Verifier } from '../../../src/cli/bench/verify.ts';
import type { DesignName, Dispatch, WorkerConfig } from '../../../src/contract/config.ts';
import { EngineCore } from '../../../src/engine/engine-core.ts';
import { CpuDevice } from '../../../src/kernels/device/cpu-device.ts';
import { modelPreset } from '../../../src/kernels/model/model-presets.ts';
import { wgslKernels } from '../../../src/kernels/model/wgsl-kernels.ts';
import { ModelRunner } from '../../../src/worker/model-runner.ts';
import { RankGrid } from '../../../src/worker/pipeline/lockstep/rank-grid.ts';
import { newLockstep } from '../../../src/worker/thread/shared-lockstep.ts';
import { memorySharedRows } from '../../capture/memory-shared-rows.ts';
import { BASE_ENGINE } from '../../capture/scenarios.ts';

const NUM_ENGINES = 2;
const NUM_RANKS = 2;
const model = modelPreset('tiny');
const engine = { ...BASE_ENGINE, asyncScheduling: false };
const WIDTH = model.numLayers * model.topK;

/** Lengths of prompts and outputs: engine 1 is idle while engine 0 runs its last steps, and has more rows before. */
const LENGTHS = [
  [
    [5, 9],
    [2, 4],
  ],
  [
    [9, 2],
    [3, 3],
    [7, 1],
  ],
] as const;

class TestedEngine {
  readonly requests: ServedRequest[] = [];
  readonly #core: EngineCore;
  readonly #ranks: readonly ModelRunner[];
  readonly #joiners: Map<string, RowJoiner> = new Map();

  private constructor(core: EngineCore, ranks: readonly ModelRunner[]) {
    this.#core = core;
    this.#ranks = ranks;
  }

  static async start(number: number, config: Omit<WorkerConfig, 'rank'>): Promise<TestedEngine> {
    const design = designs[config.design as DesignName];
    const resources = memorySharedRows(engine.numBlocks * engine.blockSize * WIDTH);
    const ranks: ModelRunner[] = [];
    for (let rank = 0; rank < NUM_RANKS; rank++) {
      const all = { ...config, rank };
      ranks.push(await ModelRunner.create(new CpuDevice(), all, wgslKernels, design, resources));
    }
    const tested = new TestedEngine(new EngineCore(engine, design.engineHalf(model, engine, resources)), ranks);
    for (const [i, [promptLength, maxTokens]] of LENGTHS[number]!.entries())
      tested.#add(number, i, promptLength, maxTokens);
    return tested;
  }

  get hasWork(): boolean {
    return this.requests.some(({ finishReason }) => finishReason === null);
  }

  /** A pass: with the engine's own step, or a dummy where it has none. */
  async pass(): Promise<'step' | 'dummy'> {
    const step = this.#core.beginStep();
    if (step === null || step.numRequests === 0) {
      const told = step === null ? [] : this.#ranks.map((rank) => rank.execute(step));
      await Promise.all([...told, ...this.#ranks.map((rank) => rank.runDummy())]);
      if (step !== null) this.#core.finishStep(await told[0]!);
      return 'dummy';
    }
    const [output] = await Promise.all(this.#ranks.map((rank) => rank.execute(step)));
    for (const { requestId, newTokenIds, routedExperts, finishReason } of this.#core.finishStep(output!)) {
      const request = this.requests.find((each) => each.requestId === requestId)!;
      const joiner = this.#joiners.get(requestId)!;
      request.outputTokenIds.push(...newTokenIds);
      if (routedExperts !== null) joiner.add(routedExperts);
      request.finishReason = finishReason;
      request.rows = joiner.rows;
    }
    return 'step';
  }

  async close(): Promise<void> {
    for (const rank of this.#ranks) await rank.close();
  }

  #add(number: number, i: number, promptLength: number, maxTokens: number): void {
    const requestId = `${number}-${i}`;
    const promptTokenIds = Uint32Array.from({ length: promptLength }, (_, p) => 100 * number + 20 * i + p);
    const sampling = {
      maxTokens,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: true,
      routedExpertsPromptStart: 0,
    };
    this.#core.addRequest({ requestId, promptTokenIds, sampling, priority: 0, arrivalTime: 0, cacheSalt: null });
    this.#joiners.set(requestId, new RowJoiner());
    const asked = { requestId, promptTokenIds, optedIn: true, mostOutputTokens: maxTokens };
    this.requests.push({ ...asked, outputTokenIds: [], finishReason: null, refusal: null, rows: null });
  }
}

const names = Object.keys(designs).filter((name) => name !== 'off') as DesignName[];
const dispatches: readonly Dispatch[] = ['modular', 'naive', 'naive-shards'];

test.each(names.flatMap((design) => dispatches.map((dispatch) => [design, dispatch] as const)))(
  '%s, %s dispatch: every row is the request’s own',
  async (design, dispatch) => {
    const grid = new RankGrid({ dataParallel: NUM_ENGINES, pipelineParallel: 1, tensorParallel: NUM_RANKS });
    const lockstep = newLockstep(grid, { collectiveTimeoutMs: 5000, dispatch });
    const common = { numRanks: NUM_RANKS, model, engine, design, device: 'cpu', adapter: null, queueDepth: 1 } as const;
    const rest = { ballastMs: 0, sharedMemory: null, fault: null };
    const engines = await Promise.all(
      LENGTHS.map((_, number) =>
        TestedEngine.start(number, { ...common, ...rest, lockstep: { ...lockstep, engine: number } }),
      ),
    );
    const kinds: string[] = [];
    for (let pass = 0; pass < 40 && engines.some(({ hasWork }) => hasWork); pass++) {
      kinds.push((await Promise.all(engines.map((each) => each.pass()))).join());
    }
    await Promise.all(engines.map((each) => each.close()));
    expect(kinds).toContain('step,dummy');
    const verification = new Verifier(model).verify(engines.flatMap(({ requests }) => requests));
    expect(verification).toMatchObject({ wrongTokens: 0, rowsMismatched: 0, rowsMissing: 0, firstProblem: null });
    const numRows = LENGTHS.flat().reduce((sum, [prompt, output]) => sum + prompt + output - 1, 0);
    expect(verification.rowsVerified).toBe(numRows);
  },
);
