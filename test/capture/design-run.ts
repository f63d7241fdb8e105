/**
 * One seeded run of a design: real engine core, real model runner on the cpu device, and between any two calls whatever
 * the scenario holds. Everything random is drawn from the seed, and outputs are finished in order, so that a seed is a
 * run.
 */

import type { Design } from '../../src/capture/designs.ts';
import { RowJoiner } from '../../src/capture/row-joiner.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import type { DesignName, EngineConfig, ModelConfig, WorkerConfig } from '../../src/contract/config.ts';
import type { EngineCoreOutput, FinishReason } from '../../src/contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { EngineRequest } from '../../src/contract/request.ts';
import type { PositionRange, RoutedRows } from '../../src/contract/routed-rows.ts';
import { RequestKind, type SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import type { KernelSetFactory } from '../../src/kernels/model/kernel-set.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { packedBytes } from '../../src/kernels/model/kernel-shape.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import type { WorkerLiveCounts } from '../../src/worker/executor.ts';
import { InlineExecutor } from '../worker/inline-executor.ts';
import { ModelRunner } from '../../src/worker/model-runner.ts';
import { outputMessageLength, readOutputMessage, writeOutputMessage } from '../../src/worker/thread/output-message.ts';
import { readStepMessage, stepMessageLength, writeStepMessage } from '../../src/worker/thread/step-message.ts';
import { random, type Random } from '../../src/workload/random.ts';
import { memorySharedRows } from './memory-shared-rows.ts';
import type { Happened, Scenario, SchedulingMode } from './scenarios.ts';
import { BASE_ENGINE } from './scenarios.ts';
import { WatchedHalf } from './watched-half.ts';

/** One request and all that came out for it. */
export type RanRequest = {
  readonly request: EngineRequest;
  readonly tokens: number[];
  readonly joiner: RowJoiner;
  finish: FinishReason | null;
  rows: RoutedRows | null;
  /** Positions that an admission found in the prefix cache. */
  readonly hits: PositionRange[];
  /** Positions computed by steps whose output arrived while it was alive. */
  readonly computed: PositionRange[];
  endedWithoutBlocks: boolean;
  /** Outputs after the last one. */
  outputsAfterEnd: number;
};

export type RanDesign = Readonly<{
  model: ModelConfig;
  engine: EngineConfig;
  requests: readonly RanRequest[];
  happened: Happened;
  /** Steps in which rows were handed over although no request had opted in. */
  stepsWithUnwantedRows: number;
  /** Device bytes read back for capture, and the most that the scheduled tokens of opted-in requests account for. */
  captureBytes: number;
  mostCaptureBytes: number;
  isBlocking: boolean;
  mostBytesCopied: number;
  /** Calls inside a step of the scheduler in which the engine half copied more than the rows that the step brought. */
  callsWithLongCopies: number;
  /** After the drain; all 0. */
  left: Readonly<Record<string, number>>;
}>;

export type RunOptions = Readonly<{
  design: Design;
  scenario: Scenario;
  mode: SchedulingMode;
  seed: number;
  model?: ModelConfig;
  /** Absent: a modular router. */
  kernels?: KernelSetFactory;
}>;

/** More events than any run needs: a run that makes no progress fails instead of hanging. */
const MOST_EVENTS = 20_000;

/** What a recycled buffer is filled with: no expert of `tiny` has this id. */
const POISON = 0xee;

type StepInFlight = {
  readonly result: Promise<ModelRunnerOutput>;
  readonly requestIndices: readonly number[];
  /** Positions computed of each; none once a cache reset has made the step's output void. */
  spans: readonly PositionRange[];
};

export async function runDesign(options: RunOptions): Promise<RanDesign> {
  return new DesignRun(options).run();
}

class DesignRun {
  readonly #options: RunOptions;
  readonly #scenario: Scenario;
  readonly #random: Random;
  readonly #model: ModelConfig;
  readonly #config: EngineConfig;
  readonly #engine: EngineCore;
  readonly #half: WatchedHalf | null;
  readonly #sharedRows: ReturnType<typeof memorySharedRows>;
  /** Odd seeds send steps and outputs through the messages that cross threads. */
  readonly #usesMessages: boolean;
  readonly #prefixes: readonly Uint32Array[];
  readonly #requests: Map<string, RanRequest> = new Map();
  /** By request index: the engine numbers requests as they come. */
  readonly #byIndex: RanRequest[] = [];
  readonly #inFlight: StepInFlight[] = [];
  readonly #happened: Happened = {
    preemptions: 0,
    prefixHits: 0,
    prefillChunks: 0,
    aborts: 0,
    abortsInFlight: 0,
    rejectedDrafts: 0,
    acceptedDrafts: 0,
    resets: 0,
    losses: 0,
    stops: 0,
    reordered: 0,
  };
  #executor: InlineExecutor | null = null;
  #device: CpuDevice | null = null;
  #isBlocking = false;
  #stepsWithUnwantedRows = 0;
  #captureBytes = 0;
  #mostCaptureBytes = 0;

  constructor(options: RunOptions) {
    const { design, scenario, mode, seed } = options;
    this.#options = options;
    this.#scenario = scenario;
    this.#random = random(seed, `capture/${scenario.name}`);
    this.#model = options.model ?? modelPreset('tiny');
    this.#config = { ...BASE_ENGINE, ...scenario.engine, asyncScheduling: mode.asyncScheduling };
    const { numBlocks, blockSize } = this.#config;
    this.#sharedRows = memorySharedRows(numBlocks * blockSize * rowShape(this.#model).entriesPerRow);
    const half = design.engineHalf(this.#model, this.#config, this.#sharedRows);
    this.#half = half === null ? null : new WatchedHalf(half, this.#model);
    this.#engine = new EngineCore(this.#config, this.#half);
    this.#usesMessages = seed % 2 === 1;
    this.#prefixes = [0, 1].map(() => Uint32Array.from({ length: 32 }, () => this.#token()));
  }

  async run(): Promise<RanDesign> {
    await this.#startWorker();
    try {
      for (let event = 0; !(await this.#act()); event++) {
        if (event === MOST_EVENTS)
          throw new Error(`no end after ${event} events: ${JSON.stringify(this.#engine.stats())}`);
        this.#engine.checkIntegrity();
      }
      return await this.#report();
    } finally {
      await this.#executor!.shutdown();
      this.#half?.close();
    }
  }

  #token(): number {
    return this.#random.below(this.#model.vocabSize);
  }

  #chance(share: number): boolean {
    return share > 0 && this.#random.nextFloat() < share;
  }

  #between([least, most]: readonly [number, number]): number {
    return least + this.#random.below(most - least + 1);
  }

  async #startWorker(): Promise<void> {
    const { design, mode } = this.#options;
    const config: WorkerConfig = {
      rank: 0,
      numRanks: 1,
      model: this.#model,
      engine: this.#config,
      design: design.name as DesignName,
      device: 'cpu',
      adapter: null,
      queueDepth: mode.depth,
      ballastMs: 0,
      sharedMemory: null,
      fault: null,
    };
    this.#device = new CpuDevice();
    const watched: Design = {
      ...design,
      workerHalf: (context, resources) => {
        const half = design.workerHalf(context, resources);
        this.#isBlocking = half?.blockingReads !== undefined;
        return half;
      },
    };
    const kernels = this.#options.kernels ?? wgslKernels;
    const runner = await ModelRunner.create(this.#device, config, kernels, watched, this.#sharedRows);
    this.#executor = new InlineExecutor(runner, this.#device.info);
  }

  /** One event. Returns `true` when everything is over. */
  async #act(): Promise<boolean> {
    const scenario = this.#scenario;
    const isMoreToCome = this.#requests.size < scenario.numRequests;
    if (isMoreToCome && (this.#engine.isIdle || this.#chance(0.25))) {
      this.#send();
    } else if (this.#chance(scenario.abort)) {
      this.#abort();
    } else if (this.#chance(scenario.resetCache)) {
      if (this.#engine.resetPrefixCache({ resetRunning: true })) this.#happened.resets++;
      for (const step of this.#inFlight) step.spans = [];
    } else if (this.#chance(scenario.loseWorkers)) {
      await this.#loseWorkers();
    } else if (this.#inFlight.length === this.#options.mode.depth || (this.#inFlight.length > 0 && this.#chance(0.2))) {
      await this.#finish();
    } else if (!this.#begin()) {
      if (this.#inFlight.length > 0) await this.#finish();
      else return !isMoreToCome;
    }
    return false;
  }

  #send(): void {
    const scenario = this.#scenario;
    const length = this.#between(scenario.promptLength);
    const promptTokenIds = Uint32Array.from({ length }, () => this.#token());
    if (this.#chance(scenario.sharesPrefix)) {
      const prefix = this.#prefixes[this.#random.below(2)]!;
      promptTokenIds.set(prefix.subarray(0, Math.max(0, length - this.#random.below(4))));
    }
    const hasStopTokens = this.#chance(scenario.hasStopTokens);
    const requestId = `r${this.#requests.size}`;
    const request: EngineRequest = {
      requestId,
      promptTokenIds,
      sampling: {
        maxTokens: this.#between(scenario.maxTokens),
        minTokens: 0,
        eosTokenId: hasStopTokens ? this.#token() : null,
        stopTokenIds: hasStopTokens ? Array.from({ length: 15 }, () => this.#token()) : [],
        returnRoutedExperts: this.#chance(scenario.optIn),
        routedExpertsPromptStart: this.#chance(scenario.hasPromptStart) ? this.#random.below(length) : 0,
      },
      priority: this.#random.below(3),
      arrivalTime: this.#requests.size,
      cacheSalt: null,
    };
    this.#engine.addRequest(request);
    const ran: RanRequest = {
      request,
      tokens: [],
      joiner: new RowJoiner(),
      finish: null,
      rows: null,
      hits: [],
      computed: [],
      endedWithoutBlocks: false,
      outputsAfterEnd: 0,
    };
    this.#requests.set(requestId, ran);
    this.#byIndex.push(ran);
  }

  #abort(): void {
    const alive = this.#engine.requestIds;
    if (alive.length === 0) return;
    const id = alive[this.#random.below(alive.length)]!;
    const index = this.#byIndex.indexOf(this.#requests.get(id)!);
    if (this.#inFlight.some(({ requestIndices }) => requestIndices.includes(index))) this.#happened.abortsInFlight++;
    this.#happened.aborts++;
    for (const output of this.#engine.abort([id])) this.#receive(output);
  }

  async #loseWorkers(): Promise<void> {
    this.#happened.losses++;
    for (const { result } of this.#inFlight) result.catch(() => {});
    this.#inFlight.length = 0;
    void this.#device!.destroy();
    this.#captureBytes += this.#executor!.transferCounts().captureDeviceToHost;
    await this.#executor!.shutdown();
    this.#engine.onWorkersLost();
    await this.#startWorker();
  }

  #begin(): boolean {
    const step = this.#engine.beginStep();
    if (step === null) return false;
    const requestIndices = [...step.requestIndices.subarray(0, step.numRequests)];
    const spans = requestIndices.map((_, i) => this.#note(step, i));
    this.#happened.preemptions += step.preemptedIndices.length;
    const isWanted = requestIndices.map((index) => this.#byIndex[index]!.request.sampling.returnRoutedExperts);
    const numWanted = spans.reduce((sum, [from, to], i) => sum + (isWanted[i]! ? to - from : 0), 0);
    this.#mostCaptureBytes += packedBytes(this.#model, numWanted);
    const result = this.#executor!.execute(this.#usesMessages ? overMessage(step) : step);
    result.catch(() => {});
    this.#inFlight.push({ result, requestIndices, spans });
    return true;
  }

  /** Positions that the step computes of its i-th request. */
  #note(step: SchedulerOutput, i: number): PositionRange {
    const computed = step.numComputedTokens[i]!;
    const ran = this.#byIndex[step.requestIndices[i]!]!;
    const end = computed + step.numScheduledTokens[i]!;
    if (end < ran.request.promptTokenIds.length) this.#happened.prefillChunks++;
    if (step.kinds[i] !== RequestKind.running && computed > 0) {
      this.#happened.prefixHits++;
      ran.hits.push([0, computed]);
    }
    return [computed, end];
  }

  async #finish(): Promise<void> {
    const { result, requestIndices, spans } = this.#inFlight.shift()!;
    const original = await result;
    let output = this.#usesMessages ? outputOverMessage(original) : original;
    this.#countDrafts(output);
    if (this.#scenario.shufflesWorkerOrder) output = this.#shuffled(output);
    const isWanted = requestIndices.some((index) => this.#byIndex[index]!.request.sampling.returnRoutedExperts);
    if (!isWanted && output.routedExpertDeltas !== null) this.#stepsWithUnwantedRows++;
    for (const [i, index] of requestIndices.entries()) {
      const ran = this.#byIndex[index]!;
      if (ran.finish === null && spans.length > 0) ran.computed.push(spans[i]!);
    }
    for (const each of this.#engine.finishStep(output)) this.#receive(each);
    // A half that keeps a view of a recycled buffer finds this in it.
    original.routedExpertDeltas?.rows.fill(POISON);
    this.#executor!.recycle(original);
  }

  #countDrafts(output: ModelRunnerOutput): void {
    if (this.#config.numSpeculativeTokens === 0) return;
    for (let i = 0; i < output.numRequests; i++) {
      const count = output.sampledOffsets[i + 1]! - output.sampledOffsets[i]!;
      if (count > 1) this.#happened.acceptedDrafts++;
      if (count === 1 || count === 2) this.#happened.rejectedDrafts++;
    }
  }

  /** The same answer with its requests in another order. */
  #shuffled(output: ModelRunnerOutput): ModelRunnerOutput {
    const order = this.#random.permutation(output.numRequests);
    if (order.some((from, to) => from !== to)) this.#happened.reordered++;
    const permuted = (values: Uint32Array, offsets: Uint32Array) => {
      const parts = Array.from(order, (i) => values.subarray(offsets[i], offsets[i + 1]));
      const newOffsets = new Uint32Array(order.length + 1);
      for (const [i, part] of parts.entries()) newOffsets[i + 1] = newOffsets[i]! + part.length;
      return { tokenIds: Uint32Array.from(parts.flatMap((part) => [...part])), offsets: newOffsets };
    };
    const sampled = permuted(output.sampledTokenIds, output.sampledOffsets);
    return {
      ...output,
      requestIndices: Uint32Array.from(order, (i) => output.requestIndices[i]!),
      sampledTokenIds: sampled.tokenIds,
      sampledOffsets: sampled.offsets,
      drafts: output.drafts === null ? null : permuted(output.drafts.tokenIds, output.drafts.offsets),
    };
  }

  #receive(output: EngineCoreOutput): void {
    const ran = this.#requests.get(output.requestId)!;
    if (ran.finish !== null) ran.outputsAfterEnd++;
    ran.tokens.push(...output.newTokenIds);
    if (output.routedExperts !== null) ran.joiner.add(output.routedExperts);
    if (output.finishReason === null) return;
    ran.finish = output.finishReason;
    ran.rows = ran.joiner.rows;
    ran.endedWithoutBlocks = this.#half?.endedWithoutBlocks.has(output.requestId) ?? false;
    if (output.finishReason === 'stop') this.#happened.stops++;
  }

  async #report(): Promise<RanDesign> {
    const stats = this.#engine.stats();
    const worker: WorkerLiveCounts = await this.#executor!.liveCounts();
    return {
      model: this.#model,
      engine: this.#config,
      requests: this.#byIndex,
      happened: this.#happened,
      stepsWithUnwantedRows: this.#stepsWithUnwantedRows,
      captureBytes: this.#captureBytes + this.#executor!.transferCounts().captureDeviceToHost,
      isBlocking: this.#isBlocking,
      mostCaptureBytes: this.#mostCaptureBytes,
      mostBytesCopied: this.#half?.mostBytesCopied ?? 0,
      callsWithLongCopies: this.#half?.callsWithLongCopies ?? 0,
      left: {
        'requests in the engine': stats.numRunning + stats.numWaiting,
        'KV blocks in use': stats.numUsedBlocks,
        'steps in flight': stats.numStepsInFlight,
        'requests of the engine half': stats.capture?.requests ?? 0,
        'bytes of the engine half': stats.capture?.bytes ?? 0,
        'batch entries of the worker': worker.batchEntries,
        'ring slots in use': worker.ringSlots,
        'requests of the worker half': worker.capture.requests,
        'bytes of the worker half': worker.capture.bytes,
      },
    };
  }
}

function overMessage(step: SchedulerOutput): SchedulerOutput {
  const words = new Uint32Array(stepMessageLength(step));
  writeStepMessage(step, words);
  return readStepMessage(words);
}

function outputOverMessage(output: ModelRunnerOutput): ModelRunnerOutput {
  const words = new Uint32Array(outputMessageLength(output));
  writeOutputMessage(output, words);
  return readOutputMessage(words, (output.routedExpertDeltas?.rows.buffer as ArrayBuffer | undefined) ?? null);
}
