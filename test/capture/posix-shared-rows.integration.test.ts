/**
 * The shared memory and lock of `shm-flock` as they are: `shm_open`, `mmap`, `flock`. Two threads that each opened the lock file exclude
 * each other; too much memory is refused with a message before anything is made; nothing is left behind.
 */

import { existsSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test } from 'vitest';
import { createSharedRows, openSharedRows } from '../../src/capture/shm-flock/posix-shared-rows.ts';
import type { SharedRows } from '../../src/capture/shm-flock/shared-rows.ts';

const DIRECTORY = '/dev/shm';
const hasSharedMemory = process.platform === 'linux' && existsSync(DIRECTORY);
if (!hasSharedMemory) console.warn(`SKIPPED: shared memory; no ${DIRECTORY}`);

const unique = `routed-experts-test-${process.pid}`;
const where = { name: `/${unique}`, lockFile: join(tmpdir(), `${unique}.lock`) };
const NUM_ENTRIES = 1024;
const INCREMENTS = 5_000;

/** Adds 1 to entry 0 `INCREMENTS` times, each time with a pause between reading and writing: without the lock nearly half get lost. */
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

function startIncrementer(byteLength: number, start: Int32Array): Worker {
  const module = new URL('../../src/capture/shm-flock/posix-shared-rows.ts', import.meta.url).href;
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
