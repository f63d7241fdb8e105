/**
 * The shared memory and lock of `shm-flock` as they are: `shm_open`, `mmap`, `flock`. Two threads that each opened
 * the lock file exclude each other; a holder that dies lets go, and the reader waits for one that is slow; too much
 * memory is refused with a message before anything is made; nothing is left behind.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import koffi from 'koffi';
import { afterEach, describe, expect, test } from 'vitest';
import { ShmFlockEngineHalf } from '../../src/capture/shm-flock/engine-half.ts';
import { createSharedRows, openSharedRows } from '../../src/capture/shm-flock/posix-shared-rows.ts';
import type { SharedRows } from '../../src/capture/shm-flock/shared-rows.ts';
import type { CaptureRequest } from '../../src/contract/request.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { BASE_ENGINE } from './scenarios.ts';

const DIRECTORY = '/dev/shm';
const hasSharedMemory = process.platform === 'linux' && existsSync(DIRECTORY);
if (!hasSharedMemory) console.warn(`SKIPPED: shared memory; no ${DIRECTORY}`);

const unique = `routed-experts-test-${process.pid}`;
const where = { name: `/${unique}`, lockFile: join(tmpdir(), `${unique}.lock`) };
const NUM_ENTRIES = 1024;
const INCREMENTS = 5_000;

/**
 * Adds 1 to entry 0 `INCREMENTS` times, each time with a pause between reading and writing: without the lock nearly
 * half get lost.
 */
const incrementer = `
  const { workerData, parentPort } = require('node:worker_threads');
  import(workerData.module).then(({ openSharedRows }) => {
    const shared = openSharedRows(workerData.where, workerData.byteLength);
    parentPort.postMessage('ready');
    Atomics.wait(workerData.start, 0, 0, 10_000);
    for (let i = 0; i < workerData.increments; i++) {
      shared.lock();
      const value = shared.rows[0];
      for (let spin = 0; spin < 2000; spin++) shared.rows[1 + (spin % 7)] = i;
      shared.rows[0] = value + 1;
      shared.unlock();
    }
    shared.close();
    parentPort.postMessage('done');
  });
`;

const module = new URL('../../src/capture/shm-flock/posix-shared-rows.ts', import.meta.url).href;

/** Takes the lock, says so, and does nothing more until it is ended. */
const idleHolder = `
  import(MODULE).then(({ openSharedRows }) => {
    globalThis.shared = openSharedRows(WHERE, BYTES);
    shared.lock();
    LOCKED;
    setInterval(() => {}, 1000);
  });
`;

/**
 * Takes the lock, says so, and waits until a reader is about to ask for it. Then it rewrites the whole table many
 * times, and lets go. A reader that did not wait for the end would find another round's numbers.
 */
const slowHolder = `
  const { workerData, parentPort } = require('node:worker_threads');
  import(workerData.module).then(({ openSharedRows }) => {
    const shared = openSharedRows(workerData.where, workerData.byteLength);
    shared.lock();
    parentPort.postMessage('locked');
    Atomics.wait(workerData.events, 0, 0, 10_000);
    for (let round = 1; round <= workerData.rounds; round++) shared.rows.fill(round);
    Atomics.store(workerData.events, 1, 1);
    shared.unlock();
    shared.close();
  });
`;
const ROUNDS = 200_000;

const LOCK_EX_NOW = 2 | 4;
const LOCK_UN = 8;

/** Whether somebody holds the lock, without waiting for it. */
function isHeld(): boolean {
  const flock = koffi.load('libc.so.6').func('int flock(int fd, int operation)') as (fd: number, op: number) => number;
  const fd = openSync(where.lockFile, 'r+');
  const isFree = flock(fd, LOCK_EX_NOW) === 0;
  if (isFree) flock(fd, LOCK_UN);
  closeSync(fd);
  return !isFree;
}

function holderCode(byteLength: number, locked: string): string {
  return idleHolder
    .replace('MODULE', JSON.stringify(module))
    .replace('WHERE', JSON.stringify(where))
    .replace('BYTES', String(byteLength))
    .replace('LOCKED', locked);
}

function startIncrementer(byteLength: number, start: Int32Array): Worker {
  return new Worker(incrementer, {
    eval: true,
    workerData: { module, where, byteLength, start, increments: INCREMENTS },
  });
}

function said(worker: Worker, what: string): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.on('message', (message) => {
      if (message === what) resolve();
    });
  });
}

const askTooMuch = (): unknown => createSharedRows(where, 2 ** 50);

/** What a link points to; `null` once it is gone. */
function targetOf(link: string): string | null {
  try {
    return readlinkSync(link);
  } catch {
    return null;
  }
}

const leftBehind = (): string[] => [
  ...readdirSync(DIRECTORY).filter((name) => name.includes(unique)),
  ...readdirSync(tmpdir()).filter((name) => name.includes(unique)),
];

describe.skipIf(!hasSharedMemory)('posix shared rows', () => {
  let shared: SharedRows | null = null;
  afterEach(() => {
    shared?.close();
    shared = null;
  });

  test('both halves see one table', () => {
    shared = createSharedRows(where, NUM_ENTRIES * 4);
    const other = openSharedRows(where, NUM_ENTRIES * 4);
    expect(shared.rows.length).toBe(NUM_ENTRIES);
    expect(shared.rows.every((entry) => entry === 0)).toBe(true);
    other.rows[7] = 300;
    expect(shared.rows[7]).toBe(300);
    other.close();
    expect(shared.rows[7]).toBe(300);
  });

  test('two threads contend, and no write is lost', async () => {
    shared = createSharedRows(where, NUM_ENTRIES * 4);
    const start = new Int32Array(new SharedArrayBuffer(4));
    const workers = [startIncrementer(NUM_ENTRIES * 4, start), startIncrementer(NUM_ENTRIES * 4, start)];
    await Promise.all(workers.map((worker) => said(worker, 'ready')));
    const done = workers.map((worker) => said(worker, 'done'));
    Atomics.store(start, 0, 1);
    Atomics.notify(start, 0);
    await Promise.all(done);
    expect(shared.rows[0]).toBe(2 * INCREMENTS);
    await Promise.all(workers.map((worker) => worker.terminate()));
  });

  test('a process that dies with the lock lets go of it', async () => {
    shared = createSharedRows(where, NUM_ENTRIES * 4);
    const code = holderCode(NUM_ENTRIES * 4, "console.log('locked')");
    const holder = spawn(process.execPath, ['--input-type=commonjs', '-e', code], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = once(holder, 'exit');
    await Promise.race([once(holder.stdout, 'data'), exited]);
    expect(isHeld()).toBe(true);
    holder.kill('SIGKILL');
    await exited;
    expect(isHeld()).toBe(false);
    shared.lock();
    shared.unlock();
  });

  test('a thread that ends with the lock lets go of it', async () => {
    shared = createSharedRows(where, NUM_ENTRIES * 4);
    const locked = "require('node:worker_threads').parentPort.postMessage('locked')";
    const holder = new Worker(holderCode(NUM_ENTRIES * 4, locked), { eval: true });
    await said(holder, 'locked');
    expect(isHeld()).toBe(true);
    await holder.terminate();
    expect(isHeld()).toBe(false);
    shared.lock();
    shared.unlock();
  });

  test('the scheduler’s read waits for a slow holder until that lets go (L6)', async () => {
    const model = modelPreset('tiny');
    const numRows = BASE_ENGINE.numBlocks * BASE_ENGINE.blockSize;
    const byteLength = numRows * model.numLayers * model.topK * 4;
    shared = createSharedRows(where, byteLength);
    const events = new Int32Array(new SharedArrayBuffer(8));
    const holder = new Worker(slowHolder, {
      eval: true,
      workerData: { module, where, byteLength, events, rounds: ROUNDS },
    });
    const ended = once(holder, 'exit');
    await said(holder, 'locked');
    const half = new ShmFlockEngineHalf(model, BASE_ENGINE, shared);
    const request = { numTokens: 9, routedExpertsPromptStart: 0, returnRoutedExperts: true, blockIds: [60, 3] };
    Atomics.store(events, 0, 1);
    Atomics.notify(events, 0);
    // The main thread stands still in here: nothing but the holder can end it.
    const rows = half.take(request as unknown as CaptureRequest, 1, 'length')!;
    expect(Atomics.load(events, 1)).toBe(1);
    expect(new Set(rows.chunks[0])).toEqual(new Set([ROUNDS]));
    await ended;
  });

  test('the lock file is opened anew for each lock, and closed with it', () => {
    shared = createSharedRows(where, NUM_ENTRIES * 4);
    const numOpen = (): number =>
      readdirSync('/proc/self/fd').filter((fd) => targetOf(`/proc/self/fd/${fd}`) === where.lockFile).length;
    expect(numOpen()).toBe(0);
    for (let i = 0; i < 3; i++) {
      shared.lock();
      expect(numOpen()).toBe(1);
      shared.unlock();
      expect(numOpen()).toBe(0);
    }
  });

  test('the name of the object can go early; the lock works on', () => {
    const created = createSharedRows(where, NUM_ENTRIES * 4);
    shared = created;
    created.unlink();
    expect(leftBehind()).toEqual([`${unique}.lock`]);
    created.lock();
    created.unlock();
  });

  test('more than there is room for is refused, with the way out', () => {
    expect(askTooMuch).toThrow(
      /shm-flock needs POSIX shared memory: 1125899906842624 bytes are needed in \/dev\/shm, \d+ are free/,
    );
    expect(askTooMuch).toThrow(/lower --num-blocks, or leave the design out/);
    expect(leftBehind()).toEqual([]);
  });

  test('a name in use is refused', () => {
    shared = createSharedRows(where, NUM_ENTRIES * 4);
    expect(() => createSharedRows(where, NUM_ENTRIES * 4)).toThrow(/shm_open\(".*"\) failed/);
  });

  test('closing removes the object and the lock file, once', () => {
    shared = createSharedRows(where, NUM_ENTRIES * 4);
    expect(leftBehind()).toHaveLength(2);
    shared.close();
    expect(leftBehind()).toEqual([]);
    shared.close();
    expect(() => shared!.rows).toThrow(/used after close/);
  });
});
