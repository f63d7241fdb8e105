// Rows of other engines, dummy rows and padding, which the router of a data-parallel rank sees, are never handed out as
// a request's own (L3): every design, under every dispatch, engines and ranks that meet before and after each pass.

import { expect, test } from 'vitest';
import { designs } from '../../../src/capture/designs.ts';
import { RowJoiner } from '../../../src/capture/row-joiner.ts';
import type { ServedRequest } from '../../../src/cli/bench/serve-workload.ts';
import { Verifier } from '../../../src/cli/bench/verify.ts';
import type { DesignName, Dispatch, WorkerConfig } from '../../../src/contract/config.ts';
import { EngineCore } from '../../../src/engine/engine-core.ts';
import { CpuDevice } from '../../../src/kernels/device/cpu-device.ts';
import { ForwardPass } from '../../../src/kernels/model/forward-pass.ts';
import { modelPreset } from '../../../src/kernels/model/model-presets.ts';
import { StepInput } from '../../../src/kernels/model/step-input.ts';
import { wgslKernels } from '../../../src/kernels/model/wgsl-kernels.ts';
import { ModelRunner } from '../../../src/worker/model-runner.ts';
import { RankGrid } from '../../../src/worker/pipeline/lockstep/rank-grid.ts';
import { mostShardWords, newLockstep } from '../../../src/worker/thread/shared-lockstep.ts';
import { memorySharedRows } from '../../capture/memory-shared-rows.ts';
import { readWords } from '../../kernels/harness.ts';
import { BASE_ENGINE } from '../../capture/scenarios.ts';

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
    for (let rank = 0; rank < config.numRanks; rank++) {
      const all = { ...config, rank };
      ranks.push(await ModelRunner.create(new CpuDevice(), all, wgslKernels, design, resources));
    }
    const tested = new TestedEngine(new EngineCore(engine, design.engineHalf(model, engine, resources)), ranks);
    for (const [i, [promptLength, maxTokens]] of LENGTHS[number]!.entries())
      tested.add(20 * i + 100 * number, [promptLength, maxTokens], true);
    return tested;
  }

  get hasWork(): boolean {
    return this.requests.some(({ finishReason }) => finishReason === null);
  }

  get numPrefixHitTokens(): number {
    return this.#core.stats().numPrefixHitTokens;
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

  add(firstToken: number, [promptLength, maxTokens]: readonly [number, number], optedIn: boolean): void {
    const requestId = `${this.requests.length}-${firstToken}`;
    const promptTokenIds = Uint32Array.from({ length: promptLength }, (_, p) => firstToken + p);
    const sampling = {
      maxTokens,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: optedIn,
      routedExpertsPromptStart: 0,
    };
    this.#core.addRequest({ requestId, promptTokenIds, sampling, priority: 0, arrivalTime: 0, cacheSalt: null });
    this.#joiners.set(requestId, new RowJoiner());
    const asked = { requestId, promptTokenIds, optedIn, mostOutputTokens: maxTokens };
    this.requests.push({ ...asked, outputTokenIds: [], finishReason: null, refusal: null, rows: null });
  }
}

type Layout = Readonly<{ design: DesignName; dispatch: Dispatch; numEngines: number; numRanks: number }>;

function startAll({ design, dispatch, numEngines, numRanks }: Layout): Promise<TestedEngine[]> {
  const grid = new RankGrid({ dataParallel: numEngines, pipelineParallel: 1, tensorParallel: numRanks });
  const shardWords = mostShardWords({ engine, model, numRanks });
  const lockstep = newLockstep(grid, { collectiveTimeoutMs: 5000, dispatch, shardWords });
  const common = { numRanks, model, engine, design, device: 'cpu', adapter: null, queueDepth: 1 } as const;
  const rest = { ballastMs: 0, sharedMemory: null, fault: null };
  return Promise.all(
    LENGTHS.slice(0, numEngines).map((_, number) =>
      TestedEngine.start(number, { ...common, ...rest, lockstep: { ...lockstep, engine: number } }),
    ),
  );
}

/** Serves the requests of so many engines, and checks each row of each. */
async function serveAll(layout: Layout): Promise<readonly string[]> {
  const engines = await startAll(layout);
  const kinds: string[] = [];
  for (let pass = 0; pass < 40 && engines.some(({ hasWork }) => hasWork); pass++) {
    kinds.push((await Promise.all(engines.map((each) => each.pass()))).join());
  }
  await Promise.all(engines.map((each) => each.close()));
  const verification = new Verifier(model).verify(engines.flatMap(({ requests }) => requests));
  expect(verification).toMatchObject({ wrongTokens: 0, rowsMismatched: 0, rowsMissing: 0, firstProblem: null });
  const lengths = LENGTHS.slice(0, layout.numEngines).flat();
  const numRows = lengths.reduce((sum, [prompt, output]) => sum + prompt + output - 1, 0);
  expect(verification.rowsVerified).toBe(numRows);
  return kinds;
}

const names = Object.keys(designs).filter((name) => name !== 'off') as DesignName[];
const dispatches: readonly Dispatch[] = ['modular', 'naive', 'naive-shards', 'modular-shards'];

test.each(names.flatMap((design) => dispatches.map((dispatch) => [design, dispatch] as const)))(
  '%s, %s dispatch, two engines of two ranks: every row is the request’s own',
  async (design, dispatch) => {
    expect(await serveAll({ design, dispatch, numEngines: 2, numRanks: 2 })).toContain('step,dummy');
  },
);

test.each(names.flatMap((design) => [2, 4].map((numRanks) => [design, numRanks] as const)))(
  '%s, a shard for each of %i ranks of one engine: every row is the request’s own, and none is padding',
  async (design, numRanks) => {
    await serveAll({ design, dispatch: 'modular-shards', numEngines: 1, numRanks });
  },
);

test('rows that nobody asked for are gathered for a design that keeps them, and a later request has them', async () => {
  const [tested] = await startAll({ design: 'shm-flock', dispatch: 'modular-shards', numEngines: 1, numRanks: 2 });
  const drain = async (): Promise<void> => {
    for (let pass = 0; pass < 40 && tested!.hasWork; pass++) await tested!.pass();
  };
  // No step of the first request has one beside it that asks.
  for (const optedIn of [false, true]) {
    await drain();
    tested!.add(40, [11, 2], optedIn);
  }
  await drain();
  const { rowsVerified, rowsMismatched } = new Verifier(model).verify(tested!.requests.slice(-1));
  expect({ rowsVerified, rowsMismatched }).toEqual({ rowsVerified: 12, rowsMismatched: 0 });
  expect(tested!.numPrefixHitTokens).toBeGreaterThan(0);
  await tested!.close();
});

test('a router of shards sees its own rows alone: ⌈n / ranks⌉ of them, from 0 on', async () => {
  const device = new CpuDevice();
  const place = { index: 1, count: 2 };
  const forward = await ForwardPass.create(device, { model, engine, ballastMs: 0, kernels: wgslKernels, shard: place });
  const whole = await ForwardPass.create(device, { model, engine, ballastMs: 0, kernels: wgslKernels });
  const rows = await Promise.all([forward, whole].map((pass) => routedIn(device, pass, 7)));
  // Four rows a shard: the second has three, and padding. What the router of all rows would write stays as it was.
  expect(rows[0]!.shard!.subarray(0, 3 * WIDTH)).toEqual(rows[1]!.all.subarray(4 * WIDTH, 7 * WIDTH));
  expect(rows[0]!.all).toEqual(new Uint32Array(7 * WIDTH));
  expect(rows[1]!.all).not.toEqual(new Uint32Array(7 * WIDTH));
  await device.destroy();
});

/** The ids that a pass over one prompt leaves. */
async function routedIn(device: CpuDevice, forward: ForwardPass, numRows: number) {
  const input = new StepInput(forward.shape);
  input.begin(numRows, 1, 0);
  const row = input.addRequest(0, 0, numRows, 0, true);
  for (let i = 0; i < numRows; i++) {
    input.setToken(row + i, 10 + i);
    input.setSlot(row + i, i);
  }
  input.end();
  forward.upload(input);
  device.submit((commands) => forward.record(commands, input));
  const all = await readWords(device, forward.routedExperts, numRows * WIDTH);
  const shard = forward.shard && (await readWords(device, forward.shard.routedExperts, 4 * WIDTH));
  return { all, shard };
}
