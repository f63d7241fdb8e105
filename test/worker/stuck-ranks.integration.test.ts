// A thread that is stuck is lost within the time for a step, with all other ranks; it is abandoned, never terminated,
// and closes its device when it returns.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { WorkerFault } from '../../src/contract/config.ts';
import { abandonedThreadsEnded, numAbandonedThreads } from '../../src/worker/thread/abandoned-threads.ts';
import type { ThreadExecutorConfig } from '../../src/worker/thread/thread-executor.ts';
import { ThreadExecutor } from '../../src/worker/thread/thread-executor.ts';
import { closeAfterTest, expectNothingLeft, smallEngine, startServer, tiny } from '../serve/helpers.ts';
import { promptOf } from '../serve/pd-helpers.ts';
import { ask, expectRight, inject } from './losses.ts';

/** A word that ends a hang; set at the end of the test in any case. */
function releaseWord(): Int32Array<SharedArrayBuffer> {
  const word = new Int32Array(new SharedArrayBuffer(4));
  onTestFinished(() => release(word));
  return word;
}

function release(word: Int32Array<SharedArrayBuffer>): void {
  Atomics.store(word, 0, 1);
  Atomics.notify(word, 0);
}

const cases = [
  { device: 'cpu', numRanks: 2, rank: 0 },
  { device: 'cpu', numRanks: 2, rank: 1 },
  { device: 'webgpu', numRanks: 1, rank: 0 },
] as const;

test('a worker that is stuck, of any rank, is abandoned while it is stuck, and closed when it returns', async () => {
  // Nothing but the stuck thread may be slower than this, on a machine that has other work.
  const stepTimeoutMs = 3000;
  const starting = cases.map(async ({ rank, ...where }) => {
    const server = closeAfterTest(await startServer({ host: { ...where, maxRestarts: 1, stepTimeoutMs } }));
    return { server, rank, word: releaseWord() };
  });
  // All of them wait for the time-out together.
  const hung = await Promise.all(starting);
  const prompts = [1, 2, 3].map((seed) => promptOf(seed, 20));
  const lose = async ({ server, rank, word }: (typeof hung)[number]): Promise<void> => {
    await inject(server, { kind: 'hang', rank, afterSteps: 3, release: word });
    const answers = await Promise.all(prompts.map((prompt) => ask(server, prompt)));
    for (const [i, answer] of answers.entries()) expectRight(prompts[i]!, answer);
    expect(server.host.engine.workers.lastLoss).toContain(`worker of rank ${rank} was lost: it is stuck`);
    expect(await (await fetch(`${server.url}/health`)).json()).toMatchObject({ worker_restarts: 1 });
  };
  await Promise.all(hung.map(lose));
  expect(numAbandonedThreads()).toBe(cases.length);
  for (const [i, { server, word }] of hung.entries()) {
    release(word);
    await expect.poll(numAbandonedThreads, { interval: 5, timeout: 30_000 }).toBe(cases.length - 1 - i);
    // The process has outlived the map that was pending.
    expectRight(prompts[0]!, await ask(server, prompts[0]!));
    await expectNothingLeft(server);
  }
});

const executorConfig: ThreadExecutorConfig = {
  numRanks: 2,
  model: tiny,
  engine: smallEngine,
  design: 'deltas',
  device: 'cpu',
  adapter: null,
  queueDepth: 2,
  ballastMs: 0,
  sharedMemory: null,
  fault: null,
};

/** A fault that stops a thread when KV is moved, and the word that ends it. */
function hangAtKvMove(): Readonly<{ fault: WorkerFault; word: Int32Array<SharedArrayBuffer> }> {
  const word = releaseWord();
  return { fault: { kind: 'hang', afterKvMoves: 0, release: word }, word };
}

describe('an executor', () => {
  test('loses a rank that is stuck while KV is read: every read rejects, and so does what is asked later', async () => {
    const executor = await ThreadExecutor.start({ ...executorConfig, stepTimeoutMs: 500 });
    onTestFinished(() => executor.shutdown());
    const { fault, word } = hangAtKvMove();
    await executor.inject(fault);
    const reads = [executor.readKv([1, 2]), executor.readKv([3])];
    for (const read of reads) await expect(read).rejects.toMatchObject({ code: 'WORKER_LOST' });
    expect((await executor.lost).message).toContain('no reply within 0.5 s');
    await expect(executor.readKv([1])).rejects.toMatchObject({ code: 'WORKER_LOST' });
    await executor.shutdown();
    expect(numAbandonedThreads()).toBe(1);
    release(word);
    await abandonedThreadsEnded();
  });

  test('waits for ever where the time-out is 0, and a rank that replies is never stuck', async () => {
    const executor = await ThreadExecutor.start({ ...executorConfig, stepTimeoutMs: 0 });
    onTestFinished(() => executor.shutdown());
    const { fault, word } = hangAtKvMove();
    await executor.inject(fault);
    let isLost = false;
    void executor.lost.then(() => (isLost = true));
    const read = executor.readKv([1]);
    // Rank 1 replies many times over while rank 0 stands still.
    for (let i = 0; i < 50; i++) await executor.inject({ kind: 'throw', rank: 1, stepId: 1e9 });
    expect(isLost).toBe(false);
    release(word);
    await read;
  });

  test('that loses one rank waits for no other: not for one that is stuck', async () => {
    const executor = await ThreadExecutor.start({ ...executorConfig, stepTimeoutMs: 0 });
    onTestFinished(() => executor.shutdown());
    const { fault, word } = hangAtKvMove();
    await executor.inject(fault);
    const read = executor.readKv([1]);
    const lost = expect(read).rejects.toThrow('worker of rank 1 was lost: its thread ended with exit code 1');
    await executor.inject({ kind: 'exit-thread', rank: 1, afterMs: 0 }).catch(() => {});
    await lost;
    release(word);
  });

  test('a slow start is no stuck step', async () => {
    const executor = await ThreadExecutor.start({ ...executorConfig, stepTimeoutMs: 1 });
    await executor.shutdown();
    await nextTurn();
    expect(numAbandonedThreads()).toBe(0);
  });
});
