/**
 * One seeded run of `deltas` under a prefix-rows policy: prompts that share prefixes in a pool that is too small, with
 * aborts, cache resets and requests that do not ask for rows. What came out is checked in prefix-rows.contract.test.ts.
 */

import { countPositions, toArray } from '../../src/capture/routed-rows.ts';
import { designByName } from '../../src/capture/designs.ts';
import { prefixRowsPolicies } from '../../src/capture/deltas/prefix-rows.ts';
import type { RowArray } from '../../src/capture/row-shape.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import type { CaptureEngineHalf, CaptureLiveCounts } from '../../src/contract/capture.ts';
import type { EngineConfig, ModelConfig, PrefixRows, WorkerConfig } from '../../src/contract/config.ts';
import type { EngineCoreOutput, FinishReason } from '../../src/contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { EngineRequest } from '../../src/contract/request.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import { EngineCore, type EngineStats } from '../../src/engine/engine-core.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { EngineHalfMonitor } from '../../src/sim/laws/engine-half-monitor.ts';
import { Judge } from '../../src/sim/laws/judge.ts';
import { InlineExecutor } from '../worker/inline-executor.ts';
import { ModelRunner } from '../../src/worker/model-runner.ts';
import { random, type Random } from '../../src/workload/random.ts';
import { KvWitness } from './kv-witness.ts';

export type PrefixRunOptions = Readonly<{
  policy: PrefixRows;
  /** Steps in flight; 1 = synchronous. */
  depth: number;
  seed: number;
  /** Chances that a request asks for rows, and that it wants them from inside its prompt only. */
  optIn: number;
  hasPromptStart: number;
  numSpeculativeTokens: number;
  abort: number;
  resetCache: number;
  /** Fold epochs into the keys. */
  isNondeterministic: boolean;
  numBlocks: number;
  priorities: boolean;
  /** A request comes when the one before it is over. */
  oneByOne: boolean;
}>;

export type PrefixRunRequest = {
  readonly request: EngineRequest;
  readonly tokens: number[];
  finish: FinishReason | null;
  rows: RoutedRows | null;
  /** A copy of the rows when they were delivered. */
  delivered: RowArray | null;
  /** Positions that its delivered outputs attended to. */
  arrivedEnd: number;
  admissions: number;
  /** Tokens that its last admission found in the cache, and the most of any admission. */
  lastHits: number;
  mostHits: number;
};

export type PrefixRun = Readonly<{
  model: ModelConfig;
  requests: readonly PrefixRunRequest[];
  witness: KvWitness;
  stats: EngineStats;
  left: CaptureLiveCounts;
  /** Of the bounds on memory, the first that was broken. */
  brokenBound: string | null;
  mostCachedBytes: number;
  happened: Readonly<{ preemptions: number; hits: number; aborts: number; resets: number; rowsShared: number }>;
}>;

const MOST_EVENTS = 5_000;
const NUM_REQUESTS = 14;
export const BLOCK_SIZE = 4;

export async function runPrefix(options: PrefixRunOptions): Promise<PrefixRun> {
  const run = new Run(options);
  await run.start();
  try {
    return await run.drive();
  } finally {
    await run.shutdown();
  }
}

const noSharedRows = (): never => {
  throw new Error('deltas shares no memory');
};

type StepInFlight = { result: Promise<ModelRunnerOutput>; ends: Map<number, number>; isReset: boolean };

class Run {
  readonly #options: PrefixRunOptions;
  readonly #random: Random;
  readonly #model = modelPreset('tiny');
  readonly #config: EngineConfig;
  readonly #half: CaptureEngineHalf;
  readonly #engine: EngineCore;
  readonly #witness: KvWitness;
  readonly #requests: PrefixRunRequest[] = [];
  readonly #prefixes: readonly Uint32Array[];
  readonly #inFlight: StepInFlight[] = [];
  readonly #happened = { preemptions: 0, hits: 0, aborts: 0, resets: 0, rowsShared: 0 };
  /** Where the rows lie that were delivered: byte offsets of each buffer. */
  readonly #lent: Map<ArrayBufferLike, Set<number>> = new Map();
  #executor: InlineExecutor | null = null;
  #brokenBound: string | null = null;
  #mostCachedBytes = 0;

  constructor(options: PrefixRunOptions) {
    this.#options = options;
    this.#random = random(options.seed, 'capture/prefix-rows');
    this.#config = {
      blockSize: BLOCK_SIZE,
      numBlocks: options.numBlocks,
      maxNumSeqs: 5,
      maxNumBatchedTokens: 18,
      maxModelLen: 64,
      policy: options.priorities ? 'priority' : 'fcfs',
      asyncScheduling: options.depth > 1,
      enablePrefixCaching: true,
      enableChunkedPrefill: true,
      longPrefillTokenThreshold: 0,
      reserveFullIsl: false,
      watermark: 0,
      numSpeculativeTokens: options.numSpeculativeTokens,
    };
    this.#half = designByName('deltas').engineHalf(this.#model, this.#config, {
      sharedRows: noSharedRows,
      prefixRows: options.policy,
    })!;
    // It throws at a call that L5 forbids, and where cached rows are not shared.
    const monitor = new EngineHalfMonitor({
      half: this.#half,
      model: this.#model,
      engine: this.#config,
      judge: new Judge([]),
      keepsRows: prefixRowsPolicies[options.policy].keeps,
    });
    this.#engine = new EngineCore(this.#config, monitor);
    this.#witness = new KvWitness(this.#model, BLOCK_SIZE, options.isNondeterministic);
    this.#prefixes = [0, 1].map(() => Uint32Array.from({ length: 24 }, () => this.#token()));
  }

  async start(): Promise<void> {
    const device = new CpuDevice();
    const config: WorkerConfig = {
      rank: 0,
      numRanks: 1,
      model: this.#model,
      engine: this.#config,
      design: 'deltas',
      device: 'cpu',
      adapter: null,
      queueDepth: this.#options.depth,
      ballastMs: 0,
      sharedMemory: null,
      fault: null,
      routing: { kind: this.#options.isNondeterministic ? 'nondeterministic' : 'deterministic' },
    };
    const design = this.#witness.watch(designByName('deltas'));
    const runner = await ModelRunner.create(device, config, this.#witness.kernels, design, {
      sharedRows: noSharedRows,
    });
    this.#executor = new InlineExecutor(runner, device.info);
  }

  async drive(): Promise<PrefixRun> {
    for (let event = 0; await this.#act(); event++) {
      if (event === MOST_EVENTS) throw new Error(`no end: ${JSON.stringify(this.#engine.stats())}`);
      this.#engine.checkIntegrity();
      this.#checkBounds();
    }
    return {
      model: this.#model,
      requests: this.#requests,
      witness: this.#witness,
      stats: this.#engine.stats(),
      left: this.#half.liveCounts(),
      brokenBound: this.#brokenBound,
      mostCachedBytes: this.#mostCachedBytes,
      happened: this.#happened,
    };
  }

  shutdown(): Promise<void> {
    return this.#executor!.shutdown();
  }

  #token(): number {
    return this.#random.below(this.#model.vocabSize);
  }

  #chance(share: number): boolean {
    return share > 0 && this.#random.nextFloat() < share;
  }

  /** One event. Returns `false` when everything is over. */
  async #act(): Promise<boolean> {
    const { abort, resetCache, depth, oneByOne } = this.#options;
    const isMoreToCome = this.#requests.length < NUM_REQUESTS;
    if (isMoreToCome && (this.#engine.isIdle || (!oneByOne && this.#chance(0.3)))) this.#send();
    else if (this.#chance(abort)) this.#abort();
    else if (this.#chance(resetCache)) this.#reset();
    else if (this.#inFlight.length === depth || (this.#inFlight.length > 0 && this.#chance(0.2))) await this.#finish();
    else if (!this.#begin()) {
      if (this.#inFlight.length === 0) return isMoreToCome;
      await this.#finish();
    }
    return true;
  }

  /** Prompts begin as one of two texts do, for a while. */
  #send(): void {
    const { optIn, hasPromptStart } = this.#options;
    const length = 2 + this.#random.below(22);
    const promptTokenIds = Uint32Array.from({ length }, () => this.#token());
    const prefix = this.#prefixes[this.#random.below(2)]!;
    promptTokenIds.set(prefix.subarray(0, Math.min(length, 1 + this.#random.below(24))));
    const request: EngineRequest = {
      requestId: `r${this.#requests.length}`,
      promptTokenIds,
      sampling: {
        maxTokens: 1 + this.#random.below(10),
        minTokens: 0,
        eosTokenId: null,
        stopTokenIds: this.#chance(0.3) ? [this.#token(), this.#token(), this.#token()] : [],
        returnRoutedExperts: this.#chance(optIn),
        routedExpertsPromptStart: this.#chance(hasPromptStart) ? this.#random.below(length) : 0,
      },
      priority: this.#options.priorities ? this.#random.below(3) : 0,
      arrivalTime: this.#requests.length,
      cacheSalt: null,
    };
    this.#engine.addRequest(request);
    const blank = { finish: null, rows: null, delivered: null, arrivedEnd: 0, admissions: 0, lastHits: 0, mostHits: 0 };
    this.#requests.push({ request, tokens: [], ...blank });
  }

  #abort(): void {
    const alive = this.#engine.requestIds;
    if (alive.length === 0) return;
    this.#happened.aborts++;
    for (const output of this.#engine.abort([alive[this.#random.below(alive.length)]!])) this.#receive(output);
  }

  #reset(): void {
    if (!this.#engine.resetPrefixCache({ resetRunning: this.#chance(0.7) })) return;
    this.#happened.resets++;
    for (const step of this.#inFlight) step.isReset = true;
    if ((this.#half.liveCounts().cachedBytes ?? 0) > 0) this.#brokenBound ??= 'rows of cached blocks survive a reset';
  }

  #begin(): boolean {
    const step = this.#engine.beginStep();
    if (step === null) return false;
    this.#witness.onPlan(step);
    this.#happened.preemptions += step.preemptedIndices.length;
    const ends: Map<number, number> = new Map();
    for (let i = 0; i < step.numRequests; i++) {
      const index = step.requestIndices[i]!;
      const computed = step.numComputedTokens[i]!;
      // Placeholders may be ahead of what the worker computes: only what is known counts as arrived.
      ends.set(index, computed + step.numScheduledTokens[i]!);
      if (step.kinds[i] === 0) continue;
      const ran = this.#requests[index]!;
      ran.admissions++;
      ran.lastHits = computed;
      ran.mostHits = Math.max(ran.mostHits, computed);
      if (computed > 0) this.#happened.hits++;
    }
    const result = this.#executor!.execute(step);
    result.catch(() => {});
    this.#inFlight.push({ result, ends, isReset: false });
    return true;
  }

  async #finish(): Promise<void> {
    const { result, ends, isReset } = this.#inFlight.shift()!;
    const output = await result;
    if (!isReset) {
      for (const [index, end] of ends) {
        const ran = this.#requests[index]!;
        const known = ran.request.promptTokenIds.length + ran.tokens.length;
        if (ran.finish === null) ran.arrivedEnd = Math.max(ran.arrivedEnd, Math.min(end, known));
      }
    }
    for (const each of this.#engine.finishStep(output)) this.#receive(each);
    output.routedExpertDeltas?.rows.fill(0xee);
    this.#executor!.recycle(output);
  }

  #receive(output: EngineCoreOutput): void {
    const ran = this.#requests[Number(output.requestId.slice(1))]!;
    if (ran.finish !== null) throw new Error(`an output of ${output.requestId} after its end`);
    ran.tokens.push(...output.newTokenIds);
    ran.finish = output.finishReason;
    // What others may have hit is held until the steps in flight have come.
    if (ran.finish !== null) this.#inFlight.at(-1)?.ends.set(Number(output.requestId.slice(1)), 0);
    ran.rows = output.routedExperts;
    if (ran.rows === null) return;
    ran.delivered = toArray(ran.rows, 0xff);
    for (const chunk of ran.rows.chunks) {
      if (chunk === null) continue;
      const places = this.#lent.get(chunk.buffer) ?? new Set();
      this.#lent.set(chunk.buffer, places);
      if (places.has(chunk.byteOffset)) this.#happened.rowsShared++;
      places.add(chunk.byteOffset);
    }
    if (countPositions(ran.rows.missing) > ran.rows.count) this.#brokenBound ??= 'more rows missing than there are';
  }

  /**
   * L7: rows with blocks are bounded by the cached blocks, rows of requests by their tokens. Blocks that were filled
   * together are let go together: of those of a cache at most half are not cached, unless their step is in flight. Each
   * block table of a request may hold what another replaced, and its last run may have room for three blocks more: of
   * the four blocks of such a run one is cached.
   */
  #checkBounds(): void {
    const { requests, bytes, cachedBytes = 0 } = this.#half.liveCounts();
    const blockBytes = BLOCK_SIZE * rowShape(this.#model).bytesPerRow;
    const blocksOf = ({ request, tokens }: PrefixRunRequest) =>
      Math.ceil((request.promptTokenIds.length + tokens.length) / BLOCK_SIZE) + 1 + 3;
    const alive = this.#requests.filter((ran) => ran.finish === null && ran.request.sampling.returnRoutedExperts);
    const inFlight = new Set(this.#inFlight.flatMap(({ ends }) => [...ends.keys()].map((i) => this.#requests[i]!)));
    let numInFlight = 0;
    for (const ran of inFlight) numInFlight += blocksOf(ran);
    let most = 0;
    for (const ran of new Set([...alive, ...inFlight])) most += (2 + ran.admissions) * blocksOf(ran);
    this.#mostCachedBytes = Math.max(this.#mostCachedBytes, cachedBytes);
    const mostCached = 4 * this.#engine.stats().numCachedBlocks + numInFlight;
    if (cachedBytes > mostCached * blockBytes) this.#brokenBound ??= 'cachedBytes';
    if (requests > alive.length) this.#brokenBound ??= 'requests';
    if (bytes > most * blockBytes) this.#brokenBound ??= 'bytes';
  }
}
