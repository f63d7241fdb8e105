// Frontends that pause, sleep, are several, vanish, or are none: each gets what it is owed, and nothing stays behind.

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { attach } from '../../../src/serve/vllm-frontend/attach.ts';
import type { EngineFacts } from '../../../src/serve/vllm-frontend/handshake.ts';
import {
  attached,
  expectEngineEmpty,
  expectOracle,
  openAttached,
  promptOf,
  startEngine,
  type Attached,
} from './helpers.ts';
import { MirrorFrontend, type Received } from './mirror-frontend.ts';
import { pack } from './mirror-messages.ts';

/** Of the first tests, in their order: two workers, and a frontend that goes in the last of them. */
let shared: Attached;

beforeAll(async () => {
  shared = await openAttached({ host: { numRanks: 2 } });
});

afterAll(() => shared.close());

const endless = { ignore_eos: true, max_tokens: 480 };
const short = { ignore_eos: true, max_tokens: 5 };

test('every pause holds new requests, and ends, keeps or finishes those that run', async () => {
  const { frontend, ...running } = shared;
  const isPaused = (): Promise<unknown> => frontend.call('is_scheduler_paused');
  const late = async (id: string): Promise<Received> => {
    const received = await frontend.add({ id, prompt: [7, 8, 9], sampling: short });
    expect(await isPaused()).toBe(true);
    expect(received.tokens).toEqual([]);
    return received;
  };

  const kept = await frontend.add({ id: 'kept', prompt: promptOf(21), sampling: { ...endless, max_tokens: 200 } });
  await frontend.until(() => kept.tokens.length > 3);
  expect(await frontend.call('pause_scheduler', ['keep', true])).toBeNull();
  const numTokens = kept.tokens.length;
  const heldByKeep = await late('held by keep');
  expect(kept.finishReasons).toEqual([]);
  expect(running.engine.served.engine.stats()).toMatchObject({ numStepsInFlight: 0, numCachedBlocks: 0 });
  expect(kept.tokens.length).toBe(numTokens);
  expect(await frontend.call('resume_scheduler')).toBeNull();
  await frontend.until(() => kept.finishReasons.length > 0 && heldByKeep.finishReasons.length > 0);
  expectOracle(kept, promptOf(21));
  expectOracle(heldByKeep, [7, 8, 9]);

  const finishing = await frontend.add({ id: 'finishing', prompt: promptOf(5), sampling: short });
  const waited = frontend.call('pause_scheduler', ['wait', true]);
  const heldByWait = await late('held by wait');
  expect(await waited).toBeNull();
  expectOracle(finishing, promptOf(5));
  const aborted = await frontend.add({ id: 'aborted while held', prompt: [1], sampling: short });
  await frontend.abort(['aborted while held']);
  expect(await frontend.call('reset_prefix_cache', [false, false])).toBe(true);
  await frontend.call('resume_scheduler');
  await frontend.until(() => heldByWait.finishReasons.length > 0);
  expectOracle(heldByWait, [7, 8, 9]);
  expect(aborted.tokens).toEqual([]);

  const ended = await frontend.add({ id: 'ended', prompt: promptOf(6), sampling: endless });
  await frontend.until(() => ended.tokens.length > 0);
  expect(await frontend.call('reset_prefix_cache', [false, false])).toBe(false);
  expect(await frontend.call('sleep', [1, 'abort'])).toBeNull();
  expect(ended.finishReasons).toEqual([2]);
  expect(await frontend.call('is_sleeping')).toBe(true);
  await frontend.call('wake_up', [['weights']]);
  expect(await frontend.call('is_sleeping')).toBe(true);
  await frontend.call('wake_up', [['kv_cache']]);
  expect(await frontend.call('is_sleeping')).toBe(false);
  await expect(frontend.call('pause_scheduler', ['later'])).rejects.toThrow('Invalid pause mode: later');
  await expectEngineEmpty(running);
});

test('an update of the weights is accepted, and its version returned', async () => {
  const { frontend } = shared;
  const rpc = (method: string, kwargs: unknown = null): Promise<unknown> =>
    frontend.call('collective_rpc', [method, null, [], kwargs]);
  expect(await rpc('init_weight_transfer_engine', { init_info: {} })).toEqual([null, null]);
  expect(await rpc('start_weight_update')).toEqual([null, null]);
  expect(await rpc('update_weights', { update_info: { names: ['a'] } })).toEqual([null, null]);
  expect(await rpc('finish_weight_update')).toEqual([null, null]);
  await expect(rpc('shoot_the_moon')).rejects.toThrow('Call to collective_rpc method failed: no such worker method');
  expect(await frontend.call('set_weight_version', ['step-12'])).toBeNull();
  expect(await frontend.call('get_weight_version')).toBe('step-12');
  expect(await frontend.call('list_loras')).toEqual([]);
  expect(await frontend.call('add_lora', [['lora', 1, '/x']])).toBe(false);
  for (const method of ['profile', 'reset_encoder_cache', 'execute_dummy_batch']) {
    expect(await frontend.call(method, [true, null])).toBeNull();
  }
});

test('with --once the engine ends with its frontend', async () => {
  const { frontend, ended } = shared;
  await frontend.add({ id: 'r', prompt: promptOf(20), sampling: endless });
  frontend.close();
  expect(await ended).toBe('gone');
});

test('each API server gets its own outputs, and the coordinator the counts', async () => {
  const { frontend, ...running } = await attached({}, { numClients: 2, engineIndex: 1, hasCoordinator: true });
  const ask = (id: string, client: number): Promise<Received> => {
    frontend.expectAt(id, client);
    return frontend.generate({ id, client, prompt: promptOf(9, client), sampling: short });
  };
  await frontend.startWave(3, 0);
  const all = await Promise.all([ask('a', 0), ask('b', 1), ask('c', 1), frontend.call('is_sleeping', [], 1)]);
  for (const [i, received] of all.slice(0, 3).entries())
    expectOracle(received as Received, promptOf(9, Math.min(i, 1)));
  await frontend.until(() => frontend.finished.length === 3);
  expect(frontend.finished.toSorted()).toEqual(['a', 'b', 'c']);
  const counts = frontend.coordinatorMessages.map((items) => items[2] as Record<string, number>);
  await frontend.until(() => frontend.coordinatorMessages.at(-1)![2] !== null && counts.length > 1);
  expect(counts[0]).toMatchObject({ num_running_reqs: 0, num_waiting_reqs: 1 });
  expect(Math.max(...counts.map((each) => each['current_wave']!))).toBe(3);
  // A request of a wave that is over tells the coordinator to start the next one.
  await frontend.generate({ id: 'stale', prompt: [1, 2], sampling: short, at: { 12: 2 } });
  await frontend.until(() => frontend.coordinatorMessages.some((items) => items[7] === 3));
  await expectEngineEmpty(running);
});

test('a lost worker is not noticed while there are restarts; then the engine says that it dies', async () => {
  const { frontend, engine, ended } = await attached({ host: { maxRestarts: 1 } });
  const live = engine.served.engine;
  const survivor = await frontend.add({
    id: 'survivor',
    prompt: promptOf(9),
    sampling: { ...endless, max_tokens: 60 },
  });
  await frontend.until(() => survivor.tokens.length > 0);
  await live.injectFault({ kind: 'exit-thread', afterMs: 0 });
  await frontend.until(() => survivor.finishReasons.length > 0);
  expectOracle(survivor, promptOf(9));

  const received = await frontend.add({ id: 'r', prompt: promptOf(9), sampling: endless });
  await frontend.until(() => received.tokens.length > 0);
  await live.injectFault({ kind: 'exit-thread', afterMs: 0 });
  await frontend.until(() => frontend.isDead);
  expect(received.finishReasons).toEqual([3]);
  expect(String(await ended)).toMatch(/worker of rank 0 was lost/);
});

test('an engine that is stopped aborts what runs, replies to whoever waits, and says that it ends', async () => {
  const { frontend, engine, ended } = await attached();
  const received = await frontend.add({ id: 'r', prompt: promptOf(9), sampling: endless });
  await frontend.until(() => received.tokens.length > 0);
  const pausing = frontend.call('pause_scheduler', ['wait', true]);
  await frontend.call('is_scheduler_paused');
  engine.stop();
  await expect(pausing).rejects.toThrow('Server shutting down');
  await frontend.until(() => frontend.isDead);
  expect(received.finishReasons).toEqual([2]);
  expect(await ended).toBe('stopped');
});

test('a frontend may vanish between any two messages: the engine serves the next one, with nothing left', async () => {
  let frontend = await MirrorFrontend.open();
  const { address } = frontend;
  const { engine, ended, ...rest } = await startEngine(address, { once: false });
  onTestFinished(async () => {
    engine.stop();
    await ended;
  });
  const moments: readonly ((each: MirrorFrontend) => Promise<unknown>)[] = [
    (each) => each.receiveHello(),
    async (each) => {
      await each.receiveHello();
      await each.sendInit();
    },
    async (each) => {
      await each.receiveHello();
      await each.sendInit();
      await each.receiveReadyResponses();
    },
    (each) => each.attach(),
    async (each) => {
      await each.attach();
      await each.add({ id: 'r', prompt: promptOf(200), sampling: endless });
    },
    async (each) => {
      await each.attach();
      const received = await each.add({ id: 'r', prompt: promptOf(20), sampling: endless });
      await each.until(() => received.tokens.length > 1);
    },
    async (each) => {
      await each.attach();
      await each.add({ id: 'r', prompt: promptOf(20), sampling: endless });
      await each.call('pause_scheduler', ['keep', false]);
    },
  ];
  for (const moment of moments) {
    await moment(frontend);
    frontend.close();
    frontend = await openAgain(address);
  }
  await frontend.attach();
  const received = await frontend.generate({ id: 'r', prompt: promptOf(30), sampling: short });
  expectOracle(received, promptOf(30));
  await expectEngineEmpty({ engine, ended, ...rest });
  frontend.close();
});

test('what is no frontend, or one that this engine cannot serve, is named', async () => {
  const http = createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1');
  onTestFinished(() => void http.close());
  await once(http, 'listening');
  const { port } = http.address() as AddressInfo;
  expect(await problemAt(`tcp://127.0.0.1:${port}`, 10_000)).toMatch(/no vLLM frontend at .*ends the connection/);
  expect(await problemAt('tcp://127.0.0.1:1', 150)).toMatch(/no vLLM frontend at .*none answered within 0.15 s/);

  expect(await said('hello')).toMatch(/cannot use this engine: its answer to HELLO has no addresses/);
  const addresses = { inputs: ['tcp://127.0.0.1:1'], outputs: [] };
  expect(await said({ addresses, parallel_config: {} })).toMatch(/outputs are no list/);
  const two = {
    addresses: { ...addresses, outputs: ['tcp://127.0.0.1:2'] },
    parallel_config: { data_parallel_size: 2 },
  };
  expect(await said(two)).toMatch(/2 engines with a MoE config.*dense config/);
});

/** The port is free once the sockets of the frontend before are closed, which ZeroMQ does in its own time. */
async function openAgain(address: string): Promise<MirrorFrontend> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await MirrorFrontend.open({}, address);
    } catch (error) {
      if (attempt === 200) throw error;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

const facts: EngineFacts = {
  engineIndex: 0,
  version: 'test',
  instanceId: 'test',
  maxModelLen: 512,
  numBlocks: 513,
  blockSize: 4,
  maxNumSeqs: 64,
  maxNumBatchedTokens: 256,
  numWorkers: 1,
  numStages: 1,
};

/** Why nothing at an address can be joined. */
async function problemAt(address: string, timeoutMs: number): Promise<string> {
  const options = { address, engine: facts, parallelConfigHash: null, timeoutMs, goneAfterMs: 100 };
  return attach(options, wasJoined, new AbortController().signal).then(() => 'none', String);
}

/** The same of a frontend that answers HELLO so. */
async function said(frame: unknown): Promise<string> {
  const frontend = await MirrorFrontend.open();
  const problem = problemAt(frontend.address, 10_000);
  await frontend.receiveHello();
  await frontend.sendRaw([pack(frame)]);
  const text = await problem;
  frontend.close();
  return text;
}

function wasJoined(): never {
  throw new Error('it was joined');
}
