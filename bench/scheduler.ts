/**
 * The scheduler alone: one `schedule` + `update` with N decode requests running, per request, for N from 16 to 4,096.
 * The cost per request has to stay flat. The workers' outputs are made outside the timed part. With rows for all, the
 * engine half of `deltas` takes in a row for each request and step, too.
 */

import { Bench } from 'tinybench';
import { designs } from '../src/capture/designs.ts';
import { rowShape } from '../src/capture/row-shape.ts';
import { SpanWriter } from '../src/capture/spans.ts';
import type { EngineConfig } from '../src/contract/config.ts';
import type { ModelRunnerOutput, RoutedExpertDeltas } from '../src/contract/model-runner-output.ts';
import type { SchedulerOutput } from '../src/contract/scheduler-output.ts';
import { BlockPool } from '../src/engine/kv/block-pool.ts';
import { LiveRequests } from '../src/engine/live-requests.ts';
import { Request } from '../src/engine/request.ts';
import { Scheduler } from '../src/engine/scheduler.ts';
import { modelPreset } from '../src/kernels/model/model-presets.ts';

const PROMPT_LENGTH = 64;
const STEPS_PER_CALL = 20;
/**
 * Outputs of a request before it is replaced by a new scheduler: keeps every block table short and every step a decode.
 */
const STEPS_PER_SCHEDULER = 1000;

type Mode = 'sync' | 'async' | 'async, worker order shuffled' | 'async, rows for all';

const model = modelPreset('gpt-oss-120b');

function noSharedRows(): never {
  throw new Error('deltas has no shared rows');
}

const configFor = (numRequests: number, mode: Mode): EngineConfig => ({
  blockSize: 16,
  numBlocks: 1 + numRequests * (Math.ceil((PROMPT_LENGTH + STEPS_PER_SCHEDULER + 64) / 16) + 1),
  maxNumSeqs: numRequests,
  maxNumBatchedTokens: numRequests * PROMPT_LENGTH,
  maxModelLen: 1 << 20,
  policy: 'fcfs',
  asyncScheduling: mode !== 'sync',
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: true,
  watermark: 0,
  numSpeculativeTokens: 0,
});

/** A scheduler whose `numRequests` requests have all left their prompt behind. */
class DecodeLoad {
  readonly #numRequests: number;
  readonly #mode: Mode;
  readonly #answer: { -readonly [K in keyof ModelRunnerOutput]: ModelRunnerOutput[K] };
  #scheduler: Scheduler;
  #numSteps = 0;

  constructor(numRequests: number, mode: Mode) {
    this.#numRequests = numRequests;
    this.#mode = mode;
    // Requests run in the order of their indices; a stride that is prime to every N visits each once.
    const stride = mode === 'async, worker order shuffled' ? 7 : 1;
    this.#answer = {
      stepId: 0,
      numRequests,
      requestIndices: Uint32Array.from({ length: numRequests }, (_, i) => (i * stride) % numRequests),
      sampledTokenIds: Uint32Array.from({ length: numRequests }, (_, i) => 2 + i),
      sampledOffsets: Uint32Array.from({ length: numRequests + 1 }, (_, i) => i),
      drafts: null,
      routedExpertDeltas: null,
    };
    this.#scheduler = this.#start();
  }

  /** Runs `STEPS_PER_CALL` steps and returns the milliseconds that they took. */
  run(): number {
    if (this.#numSteps >= STEPS_PER_SCHEDULER) this.#scheduler = this.#start();
    const scheduler = this.#scheduler;
    let elapsedMs = 0;
    for (let i = 0; i < STEPS_PER_CALL; i += 1) elapsedMs += this.#step(scheduler);
    this.#numSteps += STEPS_PER_CALL;
    return elapsedMs;
  }

  #start(): Scheduler {
    const config = configFor(this.#numRequests, this.#mode);
    const isCaptured = this.#mode === 'async, rows for all';
    const half = isCaptured ? designs.deltas.engineHalf(model, config, { sharedRows: noSharedRows }) : null;
    const requests = new LiveRequests(config, half);
    const scheduler = new Scheduler(requests);
    for (let index = 0; index < this.#numRequests; index += 1) {
      const promptTokenIds = Uint32Array.from({ length: PROMPT_LENGTH }, (_, p) => index * PROMPT_LENGTH + p);
      requests.add(
        new Request(index, {
          requestId: `r${index}`,
          promptTokenIds,
          sampling: {
            maxTokens: 1 << 20,
            minTokens: 0,
            eosTokenId: 1,
            stopTokenIds: [],
            returnRoutedExperts: isCaptured,
            routedExpertsPromptStart: 0,
          },
          priority: 0,
          arrivalTime: index,
          cacheSalt: null,
        }),
      );
    }
    this.#numSteps = 0;
    this.#step(scheduler);
    return scheduler;
  }

  /** Returns the milliseconds that it took. */
  #step(scheduler: Scheduler): number {
    const started = performance.now();
    const step = scheduler.schedule();
    const scheduled = performance.now();
    this.#answer.stepId = step.stepId;
    if (this.#mode === 'async, rows for all') this.#answer.routedExpertDeltas = this.#rowsOf(step);
    const arrived = performance.now();
    if (scheduler.update(this.#answer).length !== this.#numRequests) throw new Error('not every request was scheduled');
    return scheduled - started + performance.now() - arrived;
  }

  #rowsOf(step: SchedulerOutput): RoutedExpertDeltas {
    const spans = new SpanWriter(step.numRequests);
    for (let i = 0; i < step.numRequests; i += 1) {
      spans.add(step.requestIndices[i]!, step.numComputedTokens[i]!, step.numScheduledTokens[i]!);
    }
    return spans.deltas(new Uint8Array(spans.numRows * rowShape(model).bytesPerRow));
  }
}

const table = (bench: Bench, rows: readonly { name: string; perCall: number; unit: string; scale: number }[]): void => {
  console.table(
    rows.map(({ name, perCall, unit, scale }) => {
      const { result } = bench.getTask(name)!;
      if (result.state === 'errored') throw result.error;
      if (result.state !== 'completed') throw new Error(`${name} did not complete: ${result.state}`);
      const { p50, p99, rme } = result.latency;
      return {
        task: name,
        [`p50 ${unit}`]: ((p50 * scale) / perCall).toFixed(3),
        [`p99 ${unit}`]: ((p99 * scale) / perCall).toFixed(3),
        '±%': rme.toFixed(1),
      };
    }),
  );
};

/** Prints µs per request and step of `schedule` + `update`, and ns per operation of the block pool. */
export async function run(): Promise<void> {
  const bench = new Bench({ name: 'scheduler', time: 600, warmupTime: 200 });
  const rows: { name: string; perCall: number; unit: string; scale: number }[] = [];
  for (const mode of ['sync', 'async', 'async, worker order shuffled', 'async, rows for all'] as const) {
    for (const numRequests of [16, 64, 256, 1024, 4096]) {
      // The rows of 4,096 requests and 1,000 steps are 600 MB.
      if (mode === 'async, rows for all' && numRequests > 1024) continue;
      const load = new DecodeLoad(numRequests, mode);
      const name = `${numRequests} running, ${mode}`;
      bench.add(name, () => ({ overriddenDuration: load.run() }));
      rows.push({ name, perCall: numRequests * STEPS_PER_CALL, unit: 'µs per request and step', scale: 1000 });
    }
  }
  await bench.run();
  table(bench, rows);

  const poolBench = new Bench({ name: 'block pool', time: 500, warmupTime: 100 });
  const numBlocks = 4096;
  const pool = new BlockPool(numBlocks + 1, 4);
  const ids: number[] = [];
  poolBench.add('take and free, no hash', () => {
    ids.length = 0;
    for (let i = 0; i < numBlocks; i += 1) ids.push(pool.take());
    pool.freeTable(ids);
  });
  const hashes = Uint32Array.from({ length: numBlocks * 4 }, (_, i) => Math.imul(i + 1, 0x9e3779b1));
  poolBench.add('take, cache, find, free, evict', () => {
    ids.length = 0;
    for (let i = 0; i < numBlocks; i += 1) {
      const id = pool.take();
      pool.cache(id, hashes, i * 4);
      // An older block of the same hash may still be there, and wins.
      if (pool.find(hashes, i * 4) < 0) throw new Error('a hash that was just cached is not found');
      ids.push(id);
    }
    pool.freeTable(ids);
  });
  await poolBench.run();
  table(poolBench, [
    { name: 'take and free, no hash', perCall: numBlocks, unit: 'ns per block', scale: 1e6 },
    { name: 'take, cache, find, free, evict', perCall: numBlocks, unit: 'ns per block', scale: 1e6 },
  ]);
}

if (import.meta.main) await run();
