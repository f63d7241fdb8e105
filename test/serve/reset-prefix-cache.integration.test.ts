/**
 * `POST /reset_prefix_cache`, as vLLM's clients send it: `success`, and an empty cache or nothing that has
 * changed.
 */

import { describe, expect, test, vi } from 'vitest';
import type { Server } from '../../src/serve/server.ts';
import {
  closeAfterTest,
  decodeNpy,
  expectNothingLeft,
  expectOracle,
  post,
  smallKv,
  startServer,
  type WireBody,
} from './helpers.ts';

const prompt = Array.from({ length: 30 }, (_, i) => 1 + ((i * 5) % 90));
const optedIn = { vllm_xargs: { return_routed_experts: true }, return_token_ids: true };
const ask = { prompt, max_tokens: 4, ignore_eos: true, ...optedIn };

/** What came of it, and why. */
type Reset = Readonly<{ success: boolean; message?: string }>;

const resetBody = (text: string): Reset => JSON.parse(text) as Reset;
const done = { status: 200, text: '{"success":true}' };

/** As `requests.post(url)` sends it: no body, no media type. */
async function reset(server: Server, query: string = ''): Promise<Readonly<{ status: number; text: string }>> {
  const response = await fetch(`${server.url}/reset_prefix_cache${query}`, { method: 'POST' });
  return { status: response.status, text: await response.text() };
}

function errorOf(text: string): WireBody['error'] {
  return (JSON.parse(text) as WireBody).error;
}

async function cachedTokens(server: Server): Promise<number> {
  const { body } = await post(server, '/v1/completions', ask);
  expectOracle(prompt, body.choices[0]!.token_ids, decodeNpy(body.choices[0]!.routed_experts));
  return body.usage!.prompt_tokens_details.cached_tokens;
}

test('forgets cached prefixes and their rows', async () => {
  const server = closeAfterTest(await startServer());
  await cachedTokens(server);
  expect(await cachedTokens(server)).toBeGreaterThan(0);
  expect(server.host.engine.stats().capture!.cachedBytes).toBeGreaterThan(0);
  expect(await reset(server)).toEqual(done);
  expect(server.host.engine.stats()).toMatchObject({ numCachedBlocks: 0, capture: { cachedBytes: 0 } });
  expect(await cachedTokens(server)).toBe(0);
  expect(await reset(server, '?reset_external=true&reset_running_requests=1')).toEqual(done);
  expect(await cachedTokens(server)).toBe(0);
});

test('takes a body that says nothing', async () => {
  const server = closeAfterTest(await startServer());
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${server.url}/reset_prefix_cache`, { method: 'POST', headers, body: '{}' });
  expect(response.status).toBe(200);
});

describe('with requests running', () => {
  const long = { ...ask, max_tokens: 1500 };

  test('says that it has no success and leaves everything as it was', async () => {
    const server = closeAfterTest(await startServer());
    const answer = post(server, '/v1/completions', long);
    await vi.waitFor(() => expect(server.host.engine.stats().numCachedBlocks).toBeGreaterThan(7), { interval: 1 });
    const { status, text } = await reset(server);
    expect([status, resetBody(text).success]).toEqual([200, false]);
    expect(resetBody(text).message).toMatch(/1 running.*reset_running_requests=true/);
    expect(server.host.engine.stats().numCachedBlocks).toBeGreaterThan(7);
    const { body } = await answer;
    expectOracle(prompt, body.choices[0]!.token_ids, decodeNpy(body.choices[0]!.routed_experts));
    expect(server.host.engine.stats().numPreemptions).toBe(0);
    expect(await reset(server)).toEqual(done);
  });

  test('resets them too when told to: they are computed anew, and clients get every token and row once', async () => {
    const server = closeAfterTest(await startServer());
    const answer = post(server, '/v1/completions', { ...long, n: 3 });
    await vi.waitFor(() => expect(server.host.engine.stats().numCachedBlocks).toBeGreaterThan(7), { interval: 1 });
    expect(await reset(server, '?reset_running_requests=true')).toEqual(done);
    expect(server.host.engine.stats().numPreemptions).toBe(3);
    const { status, body } = await answer;
    expect(status).toBe(200);
    for (const choice of body.choices) {
      expect(choice.token_ids).toHaveLength(1500);
      expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts));
    }
    await expectNothingLeft(server);
  });
});

test('with KV kept for another engine: no success either way, and the KV can still be fetched', async () => {
  const server = closeAfterTest(await startServer({ host: { kv: smallKv } }));
  const kept = await post(server, '/v1/completions', {
    ...ask,
    max_tokens: 1,
    kv_transfer_params: { do_remote_decode: true, do_remote_prefill: false },
  });
  expect(kept.status).toBe(200);
  for (const query of ['', '?reset_running_requests=true']) {
    const { status, text } = await reset(server, query);
    expect([query, status, resetBody(text).success]).toEqual([query, 200, false]);
    expect(resetBody(text).message).toMatch(/8 blocks kept for other engines/);
  }
  const params = (kept.body as unknown as { kv_transfer_params: Record<string, unknown> }).kv_transfer_params;
  const fetched = await post(server, '/v1/completions', {
    ...ask,
    kv_transfer_params: params,
    cache_salt: 'elsewhere',
  });
  expect(fetched.status).toBe(200);
  expect(server.host.engine.stats().numExternalTokens).toBe(prompt.length);
  expectOracle(prompt, fetched.body.choices[0]!.token_ids, decodeNpy(fetched.body.choices[0]!.routed_experts));
  await vi.waitFor(async () => expect(await reset(server)).toEqual(done), { timeout: 10_000, interval: 10 });
});

test('refuses what is no flag, asks for the key, and says so when the engine is gone', async () => {
  const server = closeAfterTest(await startServer({ apiKey: 'secret' }));
  expect((await reset(server)).status).toBe(401);
  const headers = { authorization: 'Bearer secret' };
  const url = `${server.url}/reset_prefix_cache`;
  const wrong = await fetch(`${url}?reset_running_requests=perhaps`, { method: 'POST', headers });
  expect(wrong.status).toBe(400);
  expect(errorOf(await wrong.text()).param).toBe('reset_running_requests');
  expect((await fetch(url, { method: 'POST', headers })).status).toBe(200);
  expect((await fetch(url, { headers })).status).toBe(405);

  const dead = closeAfterTest(await startServer({ host: { fault: { kind: 'exit-thread', stepId: 1 } } }));
  await post(dead, '/v1/completions', ask);
  expect(await reset(dead).then(({ status, text }) => [status, errorOf(text).code])).toEqual([503, 'engine_dead']);
});
