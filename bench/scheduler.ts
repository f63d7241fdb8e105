/**
 * The scheduler alone: one `schedule` + `update` with N decode requests running, per request, for N from 16 to 4,096.
 * The cost per request has to stay flat. The workers' outputs are made beforehand, so that only the scheduler runs in
 * the timed part.
 */

import { Bench } from 'tinybench';
import type { EngineConfig } from '../src/contract/config.ts';
import type { ModelRunnerOutput } from '../src/contract/model-runner-output.ts';
import { BlockPool } from '../src/engine/kv/block-pool.ts';
import { LiveRequests } from '../src/engine/live-requests.ts';
import { Request } from '../src/engine/request.ts';
import { Scheduler } from '../src/engine/scheduler.ts';

const PROMPT_LENGTH = 64;
const STEPS_PER_CALL = 20;
/**
 * Outputs of a request before it is replaced by a new scheduler: keeps every block table short and every step a decode.
 */
const STEPS_PER_SCHEDULER = 1000;

type Mode = 'sync' | 'async' | 'async, worker order shuffled';

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
    const started = performance.now();
    for (let i = 0; i < STEPS_PER_CALL; i += 1) this.#step(scheduler);
    const elapsedMs = performance.now() - started;
    this.#numSteps += STEPS_PER_CALL;
    return elapsedMs;
  }

  #start(): Scheduler {
    const requests = new LiveRequests(configFor(this.#numRequests, this.#mode), null);
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
            returnRoutedExperts: false,
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

  #step(scheduler: Scheduler): void {
    const step = scheduler.schedule();
    this.#answer.stepId = step.stepId;
    if (scheduler.update(this.#answer).length !== this.#numRequests) throw new Error('not every request was scheduled');
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
  for (const mode of ['sync', 'async', 'async, worker order shuffled'] as const) {
    for (const numRequests of [16, 64, 256, 1024, 4096]) {
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
