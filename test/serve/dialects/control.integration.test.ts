// What a trainer's loop asks before, between and after its requests: information, pause and resume, updates, aborts.

import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Server } from '../../../src/serve/server.ts';
import { expectNothingLeft, expectOracle, startServer, tiny } from '../helpers.ts';
import { arealRows, type Json } from './consumers.ts';

let server: Server;

beforeAll(async () => {
  server = await startServer({ isEveryRowReturned: true, apiKey: 'secret' });
});

afterAll(async () => {
  await expectNothingLeft(server);
  await server.close(0);
});

type Answer = Readonly<{ status: number; body: Json; text: string }>;

async function call(method: string, path: string, body?: unknown, key = 'secret'): Promise<Answer> {
  const response = await fetch(server.url + path, {
    method,
    headers: {
      authorization: `Bearer ${key}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.includes('json') === true;
  return { status: response.status, text, body: (isJson ? JSON.parse(text) : {}) as Json };
}

const get = (path: string): Promise<Answer> => call('GET', path);
const post = (path: string, body?: unknown): Promise<Answer> => call('POST', path, body);

const long = { input_ids: [5, 6, 7], sampling_params: { max_new_tokens: 3000, ignore_eos: true } };
const short = { input_ids: [5, 6, 7], sampling_params: { max_new_tokens: 4, ignore_eos: true } };

async function untilRunning(count: number): Promise<void> {
  await vi.waitFor(() => expect(server.host.engine.stats().numRunning).toBe(count), { interval: 1, timeout: 10_000 });
}

const reasonOf = ({ body }: Answer): unknown => ((body['meta_info'] as Json)['finish_reason'] as Json)['type'];
const versionOf = ({ body }: Answer): unknown => (body['meta_info'] as Json)['weight_version'];

describe('information', () => {
  test.each([
    ['/health_generate', { status: 'ok' }],
    ['/server_info', { tp_size: 1, pp_size: 1, disaggregation_mode: 'null', enable_return_routed_experts: true }],
    ['/get_server_info', { tp_size: 1 }],
    ['/model_info', { model_path: 'tiny', weight_version: 'default' }],
    ['/get_model_info', { model_path: 'tiny' }],
    ['/get_weight_version', { weight_version: 'default' }],
    ['/weight_info', { weight_version: 'default' }],
    ['/v1/loads?include=core', { loads: [{ dp_rank: 0, num_running_reqs: 0, num_waiting_reqs: 0 }] }],
    ['/get_world_size', { world_size: 1 }],
    ['/is_paused', { is_paused: false }],
  ])('GET %s', async (path, wanted) => {
    const { status, body } = await get(path);
    expect([status, body]).toEqual([200, expect.objectContaining(wanted)]);
  });

  test('text → tokens → text', async () => {
    const { body } = await post('/tokenize', { model: 'tiny', prompt: 'hello' });
    expect(body).toMatchObject({ count: 10, max_model_len: 4096 });
    expect((await post('/detokenize', { tokens: body['tokens'] })).body['prompt']).toBe('hello');
  });

  test('needs the key, as everything does that is for no probe', async () => {
    for (const path of ['/pause', '/generate', '/update_weights', '/abort_request', '/flush_cache', '/tokenize']) {
      expect([path, (await call('POST', path, {}, 'wrong')).status]).toEqual([path, 401]);
    }
    expect((await call('GET', '/server_info', undefined, 'wrong')).status).toBe(401);
    expect((await call('GET', '/health_generate', undefined, 'wrong')).status).toBe(200);
  });
});

describe('aborts', () => {
  test('by id, by prefix, all; an unknown id is no error; tokens and rows so far come back', async () => {
    for (const [rids, abort] of [
      [['one'], { rid: 'one' }],
      [['group-1', 'group-2'], { rid: 'group', prefix: true }],
      [['a', 'b'], { abort_all: true }],
    ] as const) {
      const answers = rids.map((rid) => post('/generate', { ...long, rid }));
      await untilRunning(rids.length);
      expect(await post('/abort_request', { rid: 'unknown' })).toMatchObject({ status: 200, text: '' });
      expect((await post('/abort_request', abort)).status).toBe(200);
      for (const answer of await Promise.all(answers)) {
        expect([answer.status, reasonOf(answer)]).toEqual([200, 'abort']);
        const tokens = answer.body['output_ids'] as number[];
        if ((answer.body['meta_info'] as Json)['routed_experts'] === null) continue;
        const { count, ids } = arealRows(answer.body);
        expectOracle([5, 6, 7], tokens, { shape: [count, tiny.numLayers, tiny.topK], ids });
      }
    }
  });

  test('vLLM’s: a list of ids, or all', async () => {
    const answer = post('/generate', { ...long, rid: 'mine' });
    await untilRunning(1);
    expect((await post('/abort_requests', { request_ids: ['other'] })).body).toEqual({ status: 'aborted', aborted: 0 });
    expect((await post('/abort_requests', { request_ids: [] })).body).toEqual({ status: 'aborted', aborted: 1 });
    expect(reasonOf(await answer)).toBe('abort');
  });
});

describe('pause, update, resume', () => {
  test('SGLang’s order: abort, flush, update with a version, continue', async () => {
    const running = post('/generate', long);
    await untilRunning(1);
    expect((await post('/flush_cache')).status).toBe(400);
    const early = await post('/update_weights_from_disk', { model_path: '/nowhere', weight_version: '1' });
    expect(early).toMatchObject({ status: 400, body: { success: false } });
    expect((await post('/pause_generation', {})).status).toBe(200);
    expect(reasonOf(await running)).toBe('abort');
    const waiting = post('/generate', short);
    await vi.waitFor(async () => {
      const { body } = await get('/v1/loads?include=core');
      expect(body['loads']).toMatchObject([{ num_running_reqs: 0, num_waiting_reqs: 1 }]);
    });
    expect((await get('/flush_cache')).status).toBe(200);
    expect(server.host.engine.stats().numCachedBlocks).toBe(0);
    for (const path of [
      '/init_weights_update_group',
      '/update_weights_from_distributed',
      '/update_weights_from_tensor',
    ]) {
      const { body } = await post(path, { weight_version: '7', names: ['w'], dtypes: ['bf16'], shapes: [[1]] });
      expect([path, body['success']]).toEqual([path, true]);
    }
    expect((await get('/is_paused')).body).toEqual({ is_paused: true });
    expect((await post('/continue_generation', {})).status).toBe(200);
    expect([reasonOf(await waiting), versionOf(await waiting)]).toEqual(['length', '7']);
    expect((await get('/model_info')).body['weight_version']).toBe('7');
  });

  test('vLLM’s: wait lets requests end; new ones wait; resuming twice is no error', async () => {
    const medium = { ...long, sampling_params: { max_new_tokens: 300, ignore_eos: true } };
    const running = post('/generate', medium);
    await untilRunning(1);
    expect((await post('/pause?mode=wait&clear_cache=false')).body).toEqual({ status: 'paused' });
    expect(reasonOf(await running)).toBe('length');
    const waiting = post('/generate', { ...short, rid: 'at-the-door' });
    await vi.waitFor(async () => {
      expect((await get('/v1/loads')).body['loads']).toMatchObject([{ num_waiting_reqs: 1 }]);
    });
    await post('/abort_request', { rid: 'at-the-door' });
    const aborted = await waiting;
    expect([aborted.body['output_ids'], reasonOf(aborted)]).toEqual([[], 'abort']);
    expect((await post('/update_weights', { update_info: { names: [] } })).status).toBe(200);
    expect((await post('/finish_weight_update', { weight_version: '9' })).status).toBe(200);
    expect((await post('/update_weight_version', { new_version: '10' })).body).toMatchObject({
      success: true,
      new_version: '10',
    });
    for (let i = 0; i < 2; i++) expect((await post('/resume')).body).toEqual({ status: 'resumed' });
    expect(versionOf(await post('/generate', short))).toBe('10');
  });

  test('what cannot be done is refused, and nothing has changed', async () => {
    expect((await post('/pause?mode=sometimes')).status).toBe(400);
    expect(await post('/update_weight_version', { new_version: '3' })).toMatchObject({
      status: 400,
      body: { success: false, message: expect.stringContaining('before 10') as string },
    });
    const running = post('/generate', { ...long, rid: 'kept' });
    await untilRunning(1);
    for (const [path, body] of [
      ['/pause?mode=keep&clear_cache=false', undefined],
      ['/pause_generation', { mode: 'retract' }],
      ['/pause_generation', { mode: 'in_place' }],
    ] as const) {
      const { status, text } = await post(path, body);
      expect([path, status, text]).toEqual([path, 400, expect.stringContaining('while requests run')]);
    }
    expect((await get('/is_paused')).body).toEqual({ is_paused: false });
    await post('/abort_request', { abort_all: true });
    await running;
    // With nothing running there is nothing to hold still.
    expect((await post('/pause?mode=keep&clear_cache=false')).status).toBe(200);
    expect((await post('/resume')).status).toBe(200);
  });

  test('SkyRL’s and AReaL’s: sleep, wake up, calls of the workers, its own names', async () => {
    for (const path of [
      '/sleep',
      '/wake_up',
      '/areal_pause_generation',
      '/areal_update_weights',
      '/areal_continue_generation',
    ]) {
      expect([path, (await post(path, {})).status]).toEqual([path, 200]);
    }
    expect((await post('/collective_rpc', { method: 'f', kwargs: {} })).body).toEqual({ results: [null] });
    expect((await post('/reset_prefix_cache', { reset_running_requests: true })).body).toEqual({ success: true });
  });
});
