// KV from another engine, over a real socket: tokens and rows are the single instance's, whatever part of the KV came
// from where (L9); a hand-over that goes wrong costs that request at most, and nothing is left behind on either side
// (L7).

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Dealer, Router } from 'zeromq';
import { prepareAdapters } from '../../src/kernels/device/open-device.ts';
import type { Answer } from './helpers.ts';
import { closeAfterTest, decodeNpy, expectNothingLeft, expectOracle, post, smallKv, startServer } from './helpers.ts';
import type { Params } from './pd-helpers.ts';
import { decode, keep, prefill, promptOf, startKvServer, withRows } from './pd-helpers.ts';

const start = startKvServer;

const hasIpv6 = Object.values(networkInterfaces()).some((all) => all!.some(({ address }) => address === '::1'));

function expectRight({ status, body }: Answer, prompt: readonly number[], rowsStart: number = 0): void {
  expect(status).toBe(200);
  const choice = body.choices[0]!;
  expect(choice.routed_experts_missing).toEqual([]);
  expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts), rowsStart);
}

/** Another engine, of which nothing is right. */
async function impostor(
  answer: (header: Record<string, unknown>) => readonly (string | Buffer)[] | null,
): Promise<Params> {
  const router = new Router({ linger: 0 });
  await router.bind('tcp://127.0.0.1:*');
  onTestFinished(() => router.close());
  void (async () => {
    for await (const [peer, frame] of router) {
      const frames = answer(JSON.parse(frame!.toString()) as Record<string, unknown>);
      if (frames !== null) await router.send([peer!, ...frames]);
    }
  })();
  return {
    do_remote_prefill: true,
    remote_engine_id: 'x',
    remote_request_id: 'y',
    remote_host: '127.0.0.1',
    remote_port: Number(/:(\d+)$/.exec(router.lastEndpoint!)![1]),
    remote_num_tokens: 30,
    remote_rows: true,
  };
}

describe('a hand-over', () => {
  test('of prompts of many lengths: KV and rows come from the other engine', async () => {
    const [p, d] = [await start(), await start()];
    for (const length of [1, 2, 3, 4, 5, 8, 47, 48, 49, 300]) {
      const prompt = promptOf(length, length);
      const params = await prefill(p, prompt);
      const promised = { do_remote_prefill: true, remote_num_tokens: length, remote_rows: true, tp_size: 1 };
      expect(params).toMatchObject(promised);
      expect(p.host.engine.stats().numKeptBlocks).toBe(Math.ceil(length / 4));
      const before = d.host.engine.stats().numExternalTokens;
      expectRight(await decode(d, prompt, params), prompt);
      // The last prompt token is computed in any case: of one token there is nothing to load.
      expect(d.host.engine.stats().numExternalTokens - before).toBe(length > 1 ? length : 0);
      await expectNothingLeft(d);
      await expectNothingLeft(p);
    }
  });

  test('of rows from a start on; without rows where none are wanted', async () => {
    const [p, d] = [await start(), await start()];
    for (const rowsStart of [1, 6, 29]) {
      const prompt = promptOf(rowsStart, 30);
      const fields = { routed_experts_prompt_start: rowsStart };
      expectRight(await decode(d, prompt, await prefill(p, prompt, fields), fields), prompt, rowsStart);
    }
    const prompt = promptOf(77, 30);
    const none = { vllm_xargs: {} };
    const { body } = await decode(d, prompt, await prefill(p, prompt, none), none);
    expect(body.choices[0]).not.toHaveProperty('routed_experts');
    expect(d.host.engine.stats().numExternalTokens).toBe(4 * 30);
    await expectNothingLeft(d);
    await expectNothingLeft(p);
  });

  test('behind a prefix that is cached here, extended, repeated', async () => {
    const [p, d] = [await start(), await start()];
    const prompt = promptOf(3, 48);
    expectRight(
      await post(d, '/v1/completions', { prompt: prompt.slice(0, 33), max_tokens: 1, ...withRows }),
      prompt.slice(0, 33),
    );
    expectRight(await decode(d, prompt, await prefill(p, prompt)), prompt);
    expect(d.host.engine.stats().numExternalTokens).toBe(48 - 32);
    const longer = [...prompt, ...promptOf(9, 30)];
    expectRight(await decode(d, longer, await prefill(p, longer)), longer);
    expect(d.host.engine.stats().numExternalTokens).toBe(16 + 78 - 48);
    expectRight(await decode(d, longer, await prefill(p, longer)), longer);
    // What was loaded is cached like what was computed, with its rows.
    expectRight(await post(d, '/v1/completions', { prompt: longer, max_tokens: 3, ...withRows }), longer);
    await expectNothingLeft(d);
    await expectNothingLeft(p);
  });

  test('without rows, to a request that wants them: computed here instead, complete', async () => {
    const [p, d] = [await start(), await start()];
    const prompt = promptOf(5, 40);
    const params = await prefill(p, prompt, { vllm_xargs: {} });
    expect(params['remote_rows']).toBe(false);
    expectRight(await decode(d, prompt, params), prompt);
    expect(d.host.engine.stats().numExternalTokens).toBe(0);
    await expectNothingLeft(p);
  });

  test('without rows, under a policy that leaves them out: declared missing, up to what is computed here', async () => {
    const p = await start();
    const d = closeAfterTest(await startServer({ host: { kv: smallKv, prefixRows: 'share' } }));
    const prompt = promptOf(6, 42);
    const { body } = await decode(d, prompt, await prefill(p, prompt, { vllm_xargs: {} }));
    const choice = body.choices[0]!;
    expect(choice.routed_experts_missing).toEqual([[0, 41]]);
    expect(decodeNpy(choice.routed_experts).shape[0]).toBe(47);
    expect(d.host.engine.stats().numExternalTokens).toBe(42);
    await expectNothingLeft(d);
  });

  test.skipIf(!hasIpv6)('over IPv6', async () => {
    const [p, d] = [await start({ host: '::1' }), await start()];
    const prompt = promptOf(62, 30);
    const params = await prefill(p, prompt);
    expect(params['remote_host']).toBe('::1');
    expectRight(await decode(d, prompt, params), prompt);
    expect(d.host.engine.stats().numExternalTokens).toBe(30);
  });

  test('twice by one id, before either is fetched: both are there, and both are given back', async () => {
    const [p, d] = [await start(), await start()];
    const prompts = [promptOf(60, 30), promptOf(61, 50)];
    const name = { request_id: 'again' };
    const params = [await prefill(p, prompts[0]!, name), await prefill(p, prompts[1]!, name)];
    expect(p.host.engine.stats().numKeptBlocks).toBe(8 + 13);
    for (const [i, prompt] of prompts.entries()) expectRight(await decode(d, prompt, params[i]!, name), prompt);
    expect(d.host.engine.stats().numExternalTokens).toBe(30 + 50);
    await expectNothingLeft(p);
  });

  test('many at once, of which clients abort some', async () => {
    // What a client gave up before the other engine heard of it stays until its lease is over.
    const [p, d] = [await start({ leaseMs: 1000 }), await start()];
    const ask = async (i: number): Promise<void> => {
      const prompt = promptOf(i, 20 + i);
      const params = await prefill(p, prompt);
      if (i % 4 !== 3) {
        expectRight(await decode(d, prompt, params, { max_tokens: 30 }), prompt);
        return;
      }
      const abort = AbortSignal.timeout(1 + i);
      const body = JSON.stringify({ prompt, max_tokens: 3000, ...withRows, kv_transfer_params: params });
      const headers = { 'content-type': 'application/json' };
      const answer = fetch(`${d.url}/v1/completions`, { method: 'POST', headers, body, signal: abort });
      await expect(answer.then((response) => response.text())).rejects.toThrow();
    };
    await Promise.all(Array.from({ length: 24 }, (_, i) => ask(i)));
    await expectNothingLeft(d);
    await expectNothingLeft(p);
  });

  test('from a GPU’s queue to the TypeScript kernels, and back', async () => {
    await prepareAdapters();
    const gpu = closeAfterTest(await startServer({ host: { kv: smallKv, device: 'webgpu' } }));
    const cpu = await start();
    for (const [p, d, seed] of [
      [gpu, cpu, 40],
      [cpu, gpu, 41],
    ] as const) {
      const prompt = promptOf(seed, 70);
      expectRight(await decode(d, prompt, await prefill(p, prompt)), prompt);
      expect(d.host.engine.stats().numExternalTokens).toBe(70);
      await expectNothingLeft(p);
      await expectNothingLeft(d);
    }
  });

  test('between processes', async () => {
    const bin = fileURLToPath(new URL('../../bin/routed-experts.mjs', import.meta.url));
    const flags = ['--device', 'cpu', '--model', 'tiny', '--port', '0', '--kv-port', '0', '--block-size', '4'];
    const child = spawn(process.execPath, [bin, 'serve', ...flags, '--log-level', 'warn'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
    const url = /http:\S+/.exec(line)![0];
    const d = await start();
    const prompt = promptOf(8, 101);
    expectRight(await decode(d, prompt, await prefill({ url }, prompt)), prompt);
    expect(d.host.engine.stats().numExternalTokens).toBe(101);
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toMatch(/^routed_experts:kv_sent_bytes_total\{.*\} [1-9]\d+$/m);
    expect(metrics).toMatch(/^routed_experts:kv_kept_blocks\{.*\} 0$/m);
  });
});

describe('a hand-over that goes wrong', () => {
  const prompt = promptOf(11, 30);
  const wrongs: readonly (readonly [string, (params: Params) => Params])[] = [
    ['an engine that has restarted', (params) => ({ ...params, remote_engine_id: 'another' })],
    ['an unknown request', (params) => ({ ...params, remote_request_id: 'another' })],
    ['more tokens than there are', (params) => ({ ...params, remote_request_id: 'x', remote_num_tokens: 1e6 })],
    ['a port on which no server listens', (params) => ({ ...params, remote_port: 9 })],
  ];

  test('is recomputed', async () => {
    const [p, d] = [await start(), await start({ loadMs: 200 })];
    for (const [i, [what, spoil]] of wrongs.entries()) {
      const asked = promptOf(50 + i, 30);
      expectRight(await decode(d, asked, spoil(await prefill(p, asked))), asked);
      expect([what, d.host.engine.stats().numExternalTokens]).toEqual([what, 0]);
      await expectNothingLeft(d);
    }
  });

  test('by the other policy it fails that request alone', async () => {
    const [p, d] = [await start(), await start({ onLoadFailure: 'fail' })];
    const params = await prefill(p, prompt);
    const [bad, good] = await Promise.all([
      decode(d, prompt, { ...params, remote_request_id: 'another' }),
      post(d, '/v1/completions', { prompt, max_tokens: 4, ...withRows }),
    ]);
    expect([bad.status, bad.body.error.code]).toEqual([500, 'kv_load_failed']);
    expect(bad.body.error.message).toMatch(/no KV is kept for request another/);
    expectRight(good, prompt);
    expectRight(await decode(d, prompt, params), prompt);
    await expectNothingLeft(d);
    await expectNothingLeft(p);
  });

  test('another prompt than the one that was computed', async () => {
    const [p, d] = [await start(), await start()];
    const other = promptOf(12, 30);
    expectRight(await decode(d, other, await prefill(p, prompt)), other);
    expect(d.host.kv!.counts).toMatchObject({ loads: 1, failedLoads: 1 });
  });

  test('a lease that is over', async () => {
    const [p, d] = [await start({ leaseMs: 30 }), await start()];
    const params = await prefill(p, prompt);
    await expectNothingLeft(p);
    expect(p.host.kv!.numExpired).toBe(1);
    expectRight(await decode(d, prompt, params), prompt);
    await expectNothingLeft(d);
  });

  test('an engine that dies', async () => {
    const [p, d] = [closeAfterTest(await startServer({ host: { kv: smallKv } })), await start({ loadMs: 200 })];
    const params = await prefill(p, prompt);
    const closed = p.close(0);
    expectRight(await decode(d, prompt, params), prompt);
    await closed;
    await expectNothingLeft(d);
  });

  test('workers lost on the side that loads: what was loaded is computed again', async () => {
    const p = await start();
    const fault = { kind: 'exit-thread', stepId: 3 } as const;
    const d = closeAfterTest(await startServer({ host: { kv: smallKv, fault, maxRestarts: 1 } }));
    expectRight(await decode(d, prompt, await prefill(p, prompt), { max_tokens: 12 }), prompt);
    await expectNothingLeft(d);
  });

  const ok = { protocol: 1, error: null, rowsStart: 0, rowsEnd: 30 };
  const lies: readonly (readonly [string, Parameters<typeof impostor>[0]])[] = [
    ['no JSON', () => ['nonsense']],
    ['another protocol', ({ id }) => [JSON.stringify({ ...ok, protocol: 2, id })]],
    ['another question’s answer', () => [JSON.stringify({ ...ok, id: 999 }), Buffer.alloc(0), Buffer.alloc(0)]],
    ['frames too few', ({ id }) => [JSON.stringify({ ...ok, id, checksum: 0 })]],
    [
      'a wrong checksum',
      ({ id }) => [JSON.stringify({ ...ok, id, checksum: 1 }), Buffer.alloc(256), Buffer.alloc(120)],
    ],
    ['too little KV', ({ id }) => [JSON.stringify({ ...ok, id, checksum: 0 }), Buffer.alloc(0), Buffer.alloc(0)]],
    ['an error', ({ id }) => [JSON.stringify({ ...ok, id, error: 'no' }), Buffer.alloc(0), Buffer.alloc(0)]],
    ['nothing', () => null],
  ];

  test('an engine that lies', async () => {
    const d = await start({ loadMs: 150 });
    for (const [i, [what, lie]] of lies.entries()) {
      const asked = promptOf(20 + i, 30);
      expectRight(await decode(d, asked, await impostor(lie)), asked);
      expect([what, d.host.kv!.counts]).toMatchObject([what, { loads: i + 1, failedLoads: i + 1, tokensLoaded: 0 }]);
      await expectNothingLeft(d);
    }
  });

  test('a client that aborts while the load is under way: its blocks stay until that has ended', async () => {
    const d = await start({ loadMs: 400 });
    const params = await impostor(() => null);
    const abort = new AbortController();
    const body = JSON.stringify({ prompt, max_tokens: 5, kv_transfer_params: params });
    const headers = { 'content-type': 'application/json' };
    const answer = fetch(`${d.url}/v1/completions`, { method: 'POST', headers, body, signal: abort.signal });
    await expect.poll(() => d.host.engine.stats().numWaitingForRemoteKvs, { interval: 2 }).toBe(1);
    abort.abort();
    await expect(answer).rejects.toThrow();
    await expect.poll(() => d.numActive, { interval: 2 }).toBe(0);
    expect(d.host.engine.stats().numUsedBlocks).toBe(8);
    await expectNothingLeft(d);
  });

  test('what is no question does not disturb the engine that has the KV', async () => {
    const [p, d] = [await start(), await start()];
    const params = await prefill(p, prompt);
    const dealer = new Dealer({ linger: 0 });
    onTestFinished(() => dealer.close());
    dealer.connect(`tcp://127.0.0.1:${String(params['remote_port'])}`);
    const header = { protocol: 1, kind: 'read', id: 0, engineId: params['remote_engine_id'] };
    // What cannot be printed must not end the loop that reads questions.
    const unprintable = JSON.stringify({ ...header, engineId: { toString: 1 } });
    const questions = ['', 'x', '[]', 'null', '{}', '{"protocol":1}', JSON.stringify(header), unprintable];
    for (const question of questions) await dealer.send([question]);
    await dealer.send([
      JSON.stringify({ ...header, requestId: params['remote_request_id'], from: -4, to: 1e9, tokens: 5 }),
    ]);
    await dealer.send([
      JSON.stringify({ protocol: 1, kind: 'release', engineId: 'wrong', requestId: params['remote_request_id'] }),
    ]);
    for (let replies = 0; replies < 3; replies++) {
      const [frame] = await dealer.receive();
      expect((JSON.parse(frame!.toString()) as { error: string }).error).toBeTruthy();
    }
    expectRight(await decode(d, prompt, params), prompt);
    expect(d.host.engine.stats().numExternalTokens).toBe(30);
  });
});

describe('kv_transfer_params', () => {
  const remote = {
    do_remote_prefill: true,
    remote_engine_id: 'e',
    remote_request_id: 'r',
    remote_host: '127.0.0.1',
    remote_port: 5600,
    remote_num_tokens: 3,
  };
  const cases: readonly (readonly [string, unknown, object, string])[] = [
    ['a list', [], {}, 'kv_transfer_params'],
    ['a string', 'x', {}, 'kv_transfer_params'],
    ['both at once', { do_remote_decode: true, do_remote_prefill: true }, {}, 'kv_transfer_params.do_remote_prefill'],
    ['a flag that is none', { do_remote_decode: 1 }, {}, 'kv_transfer_params.do_remote_decode'],
    ['no engine', { ...remote, remote_engine_id: null }, {}, 'kv_transfer_params.remote_engine_id'],
    ['no request', { ...remote, remote_request_id: undefined }, {}, 'kv_transfer_params.remote_request_id'],
    ['no host', { ...remote, remote_host: null }, {}, 'kv_transfer_params.remote_host'],
    ['a host that it was not told of', { ...remote, remote_host: '10.0.0.1' }, {}, 'kv_transfer_params.remote_host'],
    ['a port that is none', { ...remote, remote_port: 70_000 }, {}, 'kv_transfer_params.remote_port'],
    ['a negative number of tokens', { ...remote, remote_num_tokens: -1 }, {}, 'kv_transfer_params.remote_num_tokens'],
    [
      'an id of a megabyte',
      { ...remote, remote_request_id: 'r'.repeat(1e6) },
      {},
      'kv_transfer_params.remote_request_id',
    ],
    ['rows that are no flag', { ...remote, remote_rows: 'yes' }, {}, 'kv_transfer_params.remote_rows'],
    ['two prompts', keep, { prompt: ['a', 'b'] }, 'prompt'],
    ['KV to keep, and a stream', keep, { stream: true }, 'stream'],
  ];

  test('that are wrong get a 400 that names the field; those that ask for nothing are served', async () => {
    const server = await start();
    for (const [what, params, fields, param] of cases) {
      const body = { prompt: 'abc', max_tokens: 1, ...fields, kv_transfer_params: params };
      const answer = await post(server, '/v1/completions', body);
      expect([what, answer.status, answer.body.error?.param]).toEqual([what, 400, param]);
    }
    for (const params of [null, {}, { do_remote_decode: false, do_remote_prefill: false }]) {
      expect((await post(server, '/v1/completions', { prompt: 'abc', kv_transfer_params: params })).status).toBe(200);
    }
    await expectNothingLeft(server);
  });
});
