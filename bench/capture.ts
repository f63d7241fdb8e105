/**
 * What each design's engine half costs the scheduler's thread: a step of N decode requests that all opted in, steps of
 * one request by its length, and the file lock of `shm-flock`. The halves are the real ones; the worker half makes the
 * payloads outside the timed part, over a device that does nothing.
 */

import { Worker } from 'node:worker_threads';
import { Bench } from 'tinybench';
import { designs, type Design } from '../src/capture/designs.ts';
import { rowShape } from '../src/capture/row-shape.ts';
import { createSharedRows } from '../src/capture/shm-flock/posix-shared-rows.ts';
import type { SharedRows } from '../src/capture/shm-flock/shared-rows.ts';
import type {
  CaptureEngineHalf,
  CaptureWorkerContext,
  CaptureWorkerHalf,
  WorkerStep,
} from '../src/contract/capture.ts';
import type { EngineConfig, ModelConfig } from '../src/contract/config.ts';
import type { CommandRecorder, Device, DeviceBuffer } from '../src/contract/device.ts';
import type { ModelRunnerOutput } from '../src/contract/model-runner-output.ts';
import { RequestKind } from '../src/contract/scheduler-output.ts';
import { Request } from '../src/engine/request.ts';
import { ScheduledStep } from '../src/engine/scheduled-step.ts';
import { modelPreset } from '../src/kernels/model/model-presets.ts';
import { sharedMemoryName } from '../src/worker/design-resources.ts';

const model: ModelConfig = modelPreset('gpt-oss-120b');
const BLOCK_SIZE = 16;
const PROMPT_LENGTH = 64;
/** As many as a block has tokens: each call caches one block of each request. */
const STEPS_PER_CALL = BLOCK_SIZE;
/** Outputs of a request before the load starts again: bounds what the halves hold. */
const STEPS_PER_LOAD = 256;
/** Rows of a request: what a step costs must not depend on them, but for the rows of the step itself (L6). */
const LENGTHS = [512, 2048, 8192];
const HASH_WORDS = 4;

function configFor(numRequests: number, length: number): EngineConfig {
  return {
    blockSize: BLOCK_SIZE,
    numBlocks: 1 + numRequests * Math.ceil((length + 1) / BLOCK_SIZE),
    maxNumSeqs: numRequests,
    maxNumBatchedTokens: numRequests * length,
    maxModelLen: 1 << 20,
    policy: 'fcfs',
    asyncScheduling: false,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: false,
    watermark: 0,
    numSpeculativeTokens: 0,
  };
}

/** The table of `shm-flock` without a system call: the lock is measured by itself. */
function unlockedRows(engine: EngineConfig): SharedRows {
  const rows = new Int32Array(engine.numBlocks * BLOCK_SIZE * rowShape(model).entriesPerRow);
  return { rows, lock: () => {}, unlock: () => {}, close: () => {} };
}

const nowhere: DeviceBuffer = { label: 'nowhere', byteLength: 0, destroy: () => {} };
const commands: CommandRecorder = { dispatch: () => {}, copy: () => {} };

/** `numRequests` opted-in requests, their block tables back to back, stepped by hand. */
class CaptureLoad {
  readonly #requests: readonly Request[];
  readonly #byIndex: ReadonlyMap<number, Request>;
  readonly #engineHalf: CaptureEngineHalf;
  readonly #workerHalf: CaptureWorkerHalf;
  readonly #step = new ScheduledStep();
  readonly #bytes: Uint8Array;
  readonly #live: (index: number) => Request | null;
  #stepId = 0;

  constructor(design: Design, numRequests: number, promptLength: number, maxLength: number, maxTokens: number) {
    const engine = configFor(numRequests, maxLength);
    const resources = { sharedRows: () => unlockedRows(engine) };
    const device = { write: () => {} } as Partial<Device> as Device;
    const pack = { bound: {} as CaptureWorkerContext['pack']['bound'], rows: nowhere, packed: nowhere };
    const context = { rank: 0, device, model, engine, routedExperts: nowhere, slotMapping: nowhere, pack };
    this.#engineHalf = design.engineHalf(model, engine, resources)!;
    this.#workerHalf = design.workerHalf(context, resources)!;
    const blocksPerRequest = Math.ceil((maxLength + 1) / BLOCK_SIZE);
    this.#requests = Array.from({ length: numRequests }, (_, index) => {
      const request = newRequest(index, promptLength, maxTokens);
      request.wanted = this.#engineHalf.wants(request);
      request.blockIds = Array.from({ length: blocksPerRequest }, (_block, b) => 1 + index * blocksPerRequest + b);
      request.blockHashes = Uint32Array.from({ length: blocksPerRequest * HASH_WORDS }, (_word, w) =>
        Math.imul(index * 65_536 + w + 1, 0x9e3779b1),
      );
      request.blockHashWords = HASH_WORDS;
      return request;
    });
    this.#byIndex = new Map(this.#requests.map((request) => [request.index, request]));
    this.#live = (index) => this.#byIndex.get(index) ?? null;
    this.#bytes = new Uint8Array(numRequests * promptLength * rowShape(model, 'int32').bytesPerRow);
  }

  /**
   * Runs one step of all requests, `numTokens` each. Returns the milliseconds that the engine half took. `ends`: the
   * requests end with it.
   */
  step(numTokens: number, ends: boolean): number {
    const { output } = this.#step;
    this.#step.begin(this.#stepId);
    for (const request of this.#requests) {
      const isNew = request.numComputedTokens === 0;
      request.stepKind = isNew ? RequestKind.new : RequestKind.running;
      request.stepNumTokens = numTokens;
      request.stepFirstNewBlock = isNew ? 0 : request.blockIds.length;
      this.#step.add(request);
    }
    this.#step.reserve();
    output.numRequests = this.#requests.length;
    output.totalNumScheduledTokens = numTokens * this.#requests.length;
    const cached: [request: Request, firstBlock: number][] = [];
    for (const [i, request] of this.#requests.entries()) {
      this.#step.write(i, request);
      const firstBlock = request.numCachedBlocks;
      request.numCachedBlocks = Math.floor((request.numComputedTokens + numTokens) / BLOCK_SIZE);
      if (request.numCachedBlocks > firstBlock) cached.push([request, firstBlock]);
      request.numHashedBlocks = request.numCachedBlocks;
      request.numComputedTokens += numTokens;
    }
    const begun = performance.now();
    for (const [request, firstBlock] of cached) this.#engineHalf.onBlocksCached?.(request, firstBlock);
    this.#engineHalf.onScheduled?.(output, this.#step.wanted, this.#step.wantedPositions);
    const scheduled = performance.now();
    const answer = this.#runWorker(numTokens);
    for (const request of this.#requests) request.appendToken(5);
    const arrived = performance.now();
    this.#engineHalf.onStepOutput(answer, this.#live);
    const taken = performance.now();
    for (const request of this.#requests) {
      this.#engineHalf.take(request, 1, ends ? 'length' : null);
      if (ends) this.#engineHalf.release(request);
    }
    const finished = performance.now();
    if (answer.routedExpertDeltas !== null) {
      this.#workerHalf.recycle?.(answer.routedExpertDeltas.rows.buffer as ArrayBuffer);
    }
    this.#stepId += 1;
    return scheduled - begun + (ends ? finished - arrived : taken - arrived + (finished - taken));
  }

  #runWorker(numTokens: number): ModelRunnerOutput {
    const { output } = this.#step;
    const n = output.numRequests;
    const perRequest = (value: (request: Request, i: number) => number): Uint32Array =>
      Uint32Array.from(this.#requests, value);
    const step: WorkerStep = {
      stepId: output.stepId,
      numRequests: n,
      numTokens: n * numTokens,
      firstRow: 0,
      requestIndices: output.requestIndices.slice(0, n),
      tokenStarts: output.numComputedTokens.slice(0, n),
      tokenCounts: perRequest(() => numTokens),
      draftCounts: new Uint32Array(n),
      rowStarts: perRequest((_, i) => i * numTokens),
      optedIn: new Uint8Array(n).fill(1),
      promptStarts: new Uint32Array(n),
      numPromptTokens: perRequest((request) => request.numPromptTokens),
      maxTokens: perRequest((request) => request.maxTokens),
      slotMapping: this.#slots(numTokens),
      captureMetadata: output.captureMetadata,
    };
    const range = this.#workerHalf.record(step, commands);
    const bytes = range === null ? null : this.#bytes.subarray(0, range.byteLength);
    return {
      stepId: output.stepId,
      numRequests: n,
      requestIndices: step.requestIndices,
      sampledTokenIds: new Uint32Array(n),
      sampledOffsets: Uint32Array.from({ length: n + 1 }, (_, i) => i),
      drafts: null,
      routedExpertDeltas: this.#workerHalf.collect(step, bytes, new Uint32Array(n).fill(1)),
    };
  }

  #slots(numTokens: number): Uint32Array {
    const slots = new Uint32Array(this.#requests.length * numTokens);
    let row = 0;
    for (const { blockIds, numComputedTokens } of this.#requests) {
      for (let p = numComputedTokens - numTokens; p < numComputedTokens; p++) {
        slots[row++] = blockIds[Math.floor(p / BLOCK_SIZE)]! * BLOCK_SIZE + (p % BLOCK_SIZE);
      }
    }
    return slots;
  }
}

function newRequest(index: number, promptLength: number, maxTokens: number): Request {
  return new Request(index, {
    requestId: `r${index}`,
    promptTokenIds: new Uint32Array(promptLength),
    sampling: {
      maxTokens,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: true,
      routedExpertsPromptStart: 0,
    },
    priority: 0,
    arrivalTime: index,
    cacheSalt: null,
  });
}

type Row = Readonly<{ name: string; perCall: number; unit: string; scale: number }>;

function print(bench: Bench, rows: readonly Row[]): void {
  console.table(
    rows.map(({ name, perCall, unit, scale }) => {
      const { result } = bench.getTask(name)!;
      if (result.state === 'errored') throw result.error;
      if (result.state !== 'completed') throw new Error(`${name} did not complete: ${result.state}`);
      const { p50, p99, rme } = result.latency;
      const shown = (ms: number) => ((ms * scale) / perCall).toFixed(3);
      return { task: name, [`p50 ${unit}`]: shown(p50), [`p99 ${unit}`]: shown(p99), '±%': rme.toFixed(1) };
    }),
  );
}

const captured: readonly Design[] = [
  ...Object.values(designs).filter(({ name }) => name !== 'off'),
  {
    ...designs.deltas,
    name: 'deltas, computed-only',
    engineHalf: (modelConfig, engine, resources) =>
      designs.deltas.engineHalf(modelConfig, engine, { ...resources, prefixRows: 'computed-only' }),
  },
];

async function benchSteps(): Promise<void> {
  const bench = new Bench({
    name: 'engine half, a decode step',
    iterations: 80,
    time: 0,
    warmupIterations: 30,
    warmupTime: 0,
  });
  const rows: Row[] = [];
  for (const design of captured) {
    for (const numRequests of [64, 256]) {
      const name = `${design.name}, ${numRequests} decodes`;
      let load: CaptureLoad | null = null;
      let numSteps = 0;
      bench.add(name, () => {
        if (load === null || numSteps + STEPS_PER_CALL > STEPS_PER_LOAD) {
          load = new CaptureLoad(design, numRequests, PROMPT_LENGTH, PROMPT_LENGTH + STEPS_PER_LOAD, 1 << 20);
          load.step(PROMPT_LENGTH, false);
          numSteps = 0;
        }
        let elapsedMs = 0;
        for (let i = 0; i < STEPS_PER_CALL; i++) elapsedMs += load.step(1, false);
        numSteps += STEPS_PER_CALL;
        return { overriddenDuration: elapsedMs };
      });
      rows.push({ name, perCall: numRequests * STEPS_PER_CALL, unit: 'µs per request and step', scale: 1000 });
    }
  }
  await bench.run();
  print(bench, rows);
}

/** One request by itself: the step that computes its prompt, the last one, and a decode step between them. */
async function benchLengths(): Promise<void> {
  for (const length of LENGTHS) {
    console.log(`one request of ${length} rows`);
    const bench = new Bench({ name: 'engine half, a request by its length', iterations: 12, time: 0, warmup: false });
    const rows: Row[] = [];
    for (const design of captured) {
      const newLoad = () => new CaptureLoad(design, 1, length - 2, length + 1, 3);
      const add = (name: string, elapsedMs: () => number): void => {
        bench.add(`${design.name}, ${name}`, () => ({ overriddenDuration: elapsedMs() }));
        rows.push({ name: `${design.name}, ${name}`, perCall: 1, unit: 'µs', scale: 1000 });
      };
      add('step that computes the prompt', () => newLoad().step(length - 2, false));
      add('decode step', () => {
        const load = newLoad();
        load.step(length - 2, false);
        return load.step(1, false);
      });
      add('last step', () => {
        const load = newLoad();
        load.step(length - 2, false);
        load.step(1, false);
        return load.step(1, true);
      });
    }
    await bench.run();
    print(bench, rows);
  }
}

const PAUSE_MS = 0.05;

function spin(durationMs: number): void {
  const until = performance.now() + durationMs;
  while (performance.now() < until);
}

/** Holds the lock for about 20 µs at a time, as the worker half does while it writes a step, until told to stop. */
const holder = `
  const { workerData } = require('node:worker_threads');
  import(workerData.module).then(({ openSharedRows }) => {
    const shared = openSharedRows(workerData.where, workerData.byteLength);
    Atomics.store(workerData.flags, 0, 1);
    Atomics.notify(workerData.flags, 0);
    while (Atomics.load(workerData.flags, 1) === 0) {
      shared.lock();
      const until = performance.now() + 0.02;
      while (performance.now() < until);
      shared.unlock();
      const next = performance.now() + 0.02;
      while (performance.now() < next);
    }
    shared.close();
  });
`;

async function benchLock(): Promise<void> {
  const where = sharedMemoryName();
  const byteLength = 1 << 16;
  const shared = createSharedRows(where, byteLength);
  const lockAndUnlock = (): void => {
    shared.lock();
    shared.unlock();
  };
  try {
    const bench = new Bench({ name: 'flock', time: 300, warmupTime: 50 });
    bench.add('lock and unlock, nobody else', lockAndUnlock);
    await bench.run();
    print(bench, [{ name: 'lock and unlock, nobody else', perCall: 1, unit: 'µs', scale: 1000 }]);

    const flags = new Int32Array(new SharedArrayBuffer(8));
    const module = new URL('../src/capture/shm-flock/posix-shared-rows.ts', import.meta.url).href;
    const worker = new Worker(holder, { eval: true, workerData: { module, where, byteLength, flags } });
    const exited = new Promise((resolve) => worker.once('exit', resolve));
    await Atomics.waitAsync(flags, 0, 0, 10_000).value;
    const contended = new Bench({
      name: 'flock, contended',
      iterations: 3000,
      time: 0,
      warmupIterations: 200,
      warmupTime: 0,
    });
    // A scheduler does other things between two locks: without a pause it would never let the other thread in.
    contended.add('lock and unlock, a thread holds it half of the time', () => {
      spin(PAUSE_MS);
      const begun = performance.now();
      lockAndUnlock();
      return { overriddenDuration: performance.now() - begun };
    });
    await contended.run();
    Atomics.store(flags, 1, 1);
    await exited;
    print(contended, [
      { name: 'lock and unlock, a thread holds it half of the time', perCall: 1, unit: 'µs', scale: 1000 },
    ]);
  } finally {
    shared.close();
  }
}

/**
 * Prints µs per request and step of each engine half, µs of steps of one request by its length, and µs of the lock.
 */
export async function run(): Promise<void> {
  console.log(`rows of ${model.name}: ${rowShape(model).bytesPerRow} bytes each`);
  await benchSteps();
  await benchLengths();
  await benchLock();
}

if (import.meta.main) await run();
