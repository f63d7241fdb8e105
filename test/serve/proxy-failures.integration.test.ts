// What the proxy does when servers or clients fail: a leg goes to another server only where that can do no harm, a
// client that leaves ends both legs, a client that does not read holds its answer back, and every error is said in
// OpenAI's words.

import { once } from 'node:events';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer as createTcpServer } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import type { Proxy } from '../../src/serve/proxy/proxy.ts';
import type { WireBody } from './helpers.ts';
import {
  closeAfterTest,
  eventsOf,
  expectNothingLeft,
  httpRequest,
  post,
  rawConnection,
  startServer,
} from './helpers.ts';
import { keep, promptOf, startKvServer, startProxy } from './pd-helpers.ts';

const completions = '/v1/completions';
const asked = { prompt: [1, 2, 3], max_tokens: 4, min_tokens: 2, stream_options: { include_usage: true } };
const params = { do_remote_prefill: true, remote_request_id: 'r' };

type Seen = Readonly<{
  path: string;
  headers: IncomingHttpHeaders;
  body: Record<string, unknown>;
  response: ServerResponse;
}>;

/** A server of which nothing is real. */
type Fake = { url: string; seen: Seen[]; isHealthy: boolean; close: () => Promise<unknown> };

async function fake(answer: (seen: Seen) => void, port = 0): Promise<Fake> {
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    if (request.url === '/health') {
      response.writeHead(self.isHealthy ? 200 : 503).end();
      return;
    }
    let text = '';
    request.on('data', (part: Buffer) => (text += part.toString()));
    request.on('end', () => {
      const body = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
      const seen = { path: request.url!, headers: request.headers, body, response };
      self.seen.push(seen);
      answer(seen);
    });
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const close = (): Promise<unknown> => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  const self: Fake = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen: [],
    isHealthy: true,
    close,
  };
  onTestFinished(async () => {
    await close();
  });
  return self;
}

const json =
  (status: number, body: unknown, headers: Record<string, string> = {}) =>
  ({ response }: Seen): void => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
  };
const prefills = json(200, { choices: [{ index: 0 }], kv_transfer_params: params });
const decodes = json(200, { choices: [{ index: 0, text: 'decoded' }] });
const drains = json(
  503,
  { error: { message: 'draining', type: 't', param: null, code: 'draining' } },
  { 'retry-after': '7' },
);
const breaks = ({ response }: Seen): void => void response.destroy();
const breaksOff = ({ response }: Seen): void => {
  response.writeHead(200, { 'content-type': 'application/json' }).write('{"choices":', () => response.destroy());
};
const never = (): void => {};

async function ask(proxy: Proxy, headers: Record<string, string> = {}): ReturnType<typeof post> {
  return post(proxy, completions, asked, headers);
}

function expectError({ status, body }: Awaited<ReturnType<typeof post>>, expected: number, code: string): void {
  expect([status, body.error?.code]).toEqual([expected, code]);
  expect(Object.keys(body.error)).toEqual(['message', 'type', 'param', 'code']);
}

/** A port where nobody listens. */
async function deadUrl(): Promise<string> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}

test('both legs are what vLLM’s proxy sends, by one name and with the client’s key', async () => {
  const [p, d] = [await fake(prefills), await fake(decodes)];
  const proxy = await startProxy([p], [d]);
  const answer = await ask(proxy, { authorization: 'Bearer key', 'x-request-id': 'mine', traceparent: '00-1' });
  expect(answer.body).toEqual({ choices: [{ index: 0, text: 'decoded' }] });
  expect(p.seen[0]!.body).toEqual({
    prompt: [1, 2, 3],
    max_tokens: 1,
    n: 1,
    stream: false,
    kv_transfer_params: { ...keep, return_rows: false },
  });
  expect(d.seen[0]!.body).toEqual({ ...asked, kv_transfer_params: params });
  for (const { headers } of [...p.seen, ...d.seen]) {
    expect(headers).toMatchObject({ authorization: 'Bearer key', 'x-request-id': 'mine', traceparent: '00-1' });
  }
  await ask(proxy);
  const ids = [p.seen[1]!, d.seen[1]!].map(({ headers }) => headers['x-request-id']);
  expect(ids[0]).toBe(ids[1]);
  expect(ids[0]).toMatch(/^[0-9a-f-]{36}$/);
  await post(proxy, '/v1/chat/completions', { messages: [], max_completion_tokens: 9, n: 5, best_of: 5 });
  expect(p.seen[2]!.body).toMatchObject({ messages: [], max_completion_tokens: 1, max_tokens: 1, n: 1 });
  expect(p.seen[2]!.body).not.toHaveProperty('best_of');
  await post(proxy, '/inference/v1/generate', {
    token_ids: [1],
    sampling_params: { max_tokens: 9, min_tokens: 3, top_k: 1 },
  });
  expect(p.seen[3]!.body).toMatchObject({ token_ids: [1], sampling_params: { max_tokens: 1, n: 1, top_k: 1 } });
  expect(p.seen[3]!.body['sampling_params']).not.toHaveProperty('min_tokens');
});

test('requests go round; a server that keeps nothing is no error', async () => {
  const fakes = await Promise.all(
    [prefills, json(200, { choices: [] }), decodes, decodes].map((answer) => fake(answer)),
  );
  const [p1, p2, d1, d2] = fakes as [Fake, Fake, Fake, Fake];
  const proxy = await startProxy([p1, p2], [d1, d2]);
  for (let i = 0; i < 6; i++) expect((await ask(proxy)).status).toBe(200);
  expect(fakes.map(({ seen }) => seen.length)).toEqual([3, 3, 3, 3]);
  const withKv = [...d1.seen, ...d2.seen].map(({ body }) => body['kv_transfer_params'] !== undefined);
  expect(withKv.filter(Boolean).length).toBe(3);
});

test.each([
  ['is gone', null],
  ['breaks the connection', breaks],
  ['breaks off in its answer', breaksOff],
  ['is draining', drains],
  ['is full', json(429, { error: { message: 'full', type: 't', param: null, code: 'overloaded' } })],
  ['fails', json(500, { error: { message: 'oh', type: 't', param: null, code: null } })],
])('a server that prefills and %s: the next one does', async (_, answer) => {
  const [bad, good, d] = [await fake(answer ?? prefills), await fake(prefills), await fake(decodes)];
  const proxy = await startProxy([bad, good], [d], { healthMs: 60_000 });
  if (answer === null) await bad.close();
  for (let i = 0; i < 4; i++) expect((await ask(proxy)).status).toBe(200);
  expect([good.seen.length, d.seen.length]).toEqual([4, 4]);
});

test('a server that prefills, has closed a connection and is there again, is asked again', async () => {
  const p = await fake((seen) => (p.seen.length === 1 ? breaks(seen) : prefills(seen)));
  const d = await fake(decodes);
  expect((await ask(await startProxy([p], [d]))).status).toBe(200);
  expect([p.seen.length, d.seen.length]).toEqual([2, 1]);
});

test.each([
  ['is gone', null],
  ['is draining', drains],
  ['is full', json(429, { error: { message: 'full', type: 't', param: null, code: 'overloaded' } })],
])('a server that decodes and %s has generated nothing: the next one does', async (_, answer) => {
  const [p, bad, good] = [await fake(prefills), await fake(answer ?? decodes), await fake(decodes)];
  const proxy = await startProxy([p], [bad, good], { healthMs: 60_000 });
  if (answer === null) await bad.close();
  for (let i = 0; i < 4; i++) expect((await ask(proxy)).status).toBe(200);
  expect([p.seen.length, good.seen.length]).toEqual([4, 4]);
});

test.each([
  ['breaks the connection', breaks, 502, 'bad_gateway'],
  ['fails', json(500, { error: { message: 'oh', type: 't', param: null, code: 'internal' } }), 500, 'internal'],
  ['says nothing', never, 504, 'gateway_timeout'],
])('a server that decodes and %s may have generated: it is not asked of another', async (_, answer, status, code) => {
  const [p, bad, good] = [await fake(prefills), await fake(answer), await fake(decodes)];
  const proxy = await startProxy([p], [bad, good], { healthMs: 60_000, decodeMs: 100 });
  expectError(await ask(proxy), status, code);
  expect(good.seen.length).toBe(0);
});

test.each([false, true])(
  'a hand-over whose KV did not come is made again, both legs, 16 times at most (stream: %s)',
  async (stream) => {
    const error = { message: 'gone', type: 't', param: null, code: 'kv_load_failed' };
    let numFailures = 3;
    const answer = (seen: Seen): void => {
      if (numFailures-- <= 0) decodes(seen);
      else if (!stream) json(500, { error })(seen);
      else {
        seen.response.writeHead(200, { 'content-type': 'text/event-stream' });
        seen.response.end(`data: ${JSON.stringify({ error })}\n\ndata: [DONE]\n\n`);
      }
    };
    const [p, d] = [await fake(prefills), await fake(answer)];
    const proxy = await startProxy([p], [d]);
    expect(await ask(proxy)).toMatchObject({ status: 200, body: { choices: [{ text: 'decoded' }] } });
    expect([p.seen.length, d.seen.length]).toEqual([4, 4]);
    numFailures = Infinity;
    const headers = { 'content-type': 'application/json' };
    const body = JSON.stringify({ ...asked, stream });
    const last = await fetch(proxy.url + completions, { method: 'POST', headers, body });
    expect([last.status, await last.text()]).toEqual([stream ? 200 : 500, expect.stringContaining('kv_load_failed')]);
    expect([p.seen.length, d.seen.length]).toEqual([20, 20]);
  },
);

test('what a server refuses, its client is told, and nobody else is asked', async () => {
  const error = { message: 'no such model', type: 'invalid_request_error', param: 'model', code: 'model_not_found' };
  const [p1, p2] = [await fake(json(404, { error })), await fake(json(404, { error }))];
  const d = await fake(json(400, { error: { ...error, code: 'other' } }));
  expect(await ask(await startProxy([p1, p2], [d]))).toMatchObject({ status: 404, body: { error } });
  expect([p1.seen.length + p2.seen.length, d.seen.length]).toEqual([1, 0]);
  expectError(await ask(await startProxy([await fake(prefills)], [d])), 400, 'other');
});

test('no server that is up: 503, and health says which; when one comes back it is used', async () => {
  const [p, d] = [await fake(prefills), await fake(decodes)];
  const proxy = await startProxy([p], [d, { url: await deadUrl() }], { healthMs: 20 });
  const health = async (): Promise<unknown> => {
    const answer = await fetch(`${proxy.url}/health`);
    return [answer.status, await answer.json()];
  };
  const up = [200, { prefill: [{ url: p.url, up: true }], decode: [{ up: true }, { up: false }] }];
  expect(await health()).toMatchObject(up);
  p.isHealthy = false;
  await expect.poll(health, { interval: 5 }).toMatchObject([503, { prefill: [{ up: false }] }]);
  const refused = await ask(proxy);
  expectError(refused, 503, 'no_backend');
  expect([refused.body.error.message, refused.headers.get('retry-after')]).toEqual([
    expect.stringContaining(p.url) as string,
    '1',
  ]);
  p.isHealthy = true;
  await expect.poll(health, { interval: 5 }).toMatchObject(up);
  expect((await ask(proxy)).status).toBe(200);
  expect(await (await fetch(`${proxy.url}/metrics`)).text()).toMatch(/server_up\{role="decode",server="[^"]+"\} 0/);
});

test('no server that decodes is up: nothing is prefilled in vain', async () => {
  const p = await fake(prefills);
  const url = await deadUrl();
  const answer = await ask(await startProxy([p], [{ url }]));
  expectError(answer, 503, 'no_backend');
  expect([answer.body.error.message, p.seen.length]).toEqual([expect.stringContaining(url) as string, 0]);
});

test('all servers that prefill fail: the last answer, or why there is none', async () => {
  const d = await fake(decodes);
  const both = await startProxy([await fake(drains), await fake(drains)], [d], { healthMs: 60_000 });
  const answer = await ask(both);
  expectError(answer, 503, 'draining');
  expect(answer.headers.get('retry-after')).toBe('7');
  expectError(await ask(await startProxy([await fake(breaks), await fake(breaks)], [d])), 502, 'bad_gateway');
  expectError(await ask(await startProxy([await fake(never)], [d], { prefillMs: 100 })), 504, 'gateway_timeout');
  for (const nonsense of ['', 'x', '[]', '{"choices":']) {
    const p = await fake(({ response }) => void response.writeHead(200).end(nonsense));
    expectError(await ask(await startProxy([p], [d])), 502, 'bad_gateway');
  }
  expect(d.seen.length).toBe(0);
});

test('an answer that breaks off in the middle is cut off, not ended', async () => {
  const p = await fake(prefills);
  const event = 'data: {"choices":[{"index":0,"text":"a"}]}\n\n';
  const d = await fake(({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(event, () => response.destroy());
  });
  for (const rows of ['with-kv', 'splice'] as const) {
    const proxy = await startProxy([p], [d], { rows });
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(proxy.url + completions, { method: 'POST', headers, body: JSON.stringify(asked) });
    expect(answer.status).toBe(200);
    await expect(answer.text()).rejects.toThrow();
    await expect.poll(() => proxy.numActive).toBe(0);
  }
});

test('rows to splice that cannot be read: 502, or the stream is cut off', async () => {
  const withRows = { ...asked, vllm_xargs: { return_routed_experts: true } };
  const rows = { routed_experts: 'x', routed_experts_missing: [[0, 2]] };
  const kept = { ...params, remote_num_tokens: 3 };
  const noRows = await fake(json(200, { choices: [{ index: 0 }], kv_transfer_params: kept }));
  const d = await fake(json(200, { choices: [{ index: 0, ...rows }] }));
  const proxy = await startProxy([noRows], [d], { rows: 'splice' });
  expectError(await post(proxy, completions, withRows), 502, 'bad_gateway');
  expect(d.seen.length).toBe(0);
});

test.each(['prefill', 'decode'] as const)('a client that leaves ends the leg to the server that %ss', async (role) => {
  let gone = 0;
  const waits = ({ response }: Seen): void => void response.once('close', () => gone++);
  const p = await fake(role === 'prefill' ? waits : prefills);
  const d = await fake(waits);
  const proxy = await startProxy([p], [d]);
  const socket = await rawConnection({ url: proxy.url });
  socket.write(httpRequest(completions, asked));
  const waiting = role === 'prefill' ? p : d;
  await expect.poll(() => waiting.seen.length, { interval: 2 }).toBe(1);
  expect(proxy.numActive).toBe(1);
  socket.destroy();
  await expect.poll(() => gone, { interval: 2 }).toBe(1);
  await expect.poll(() => proxy.numActive, { interval: 2 }).toBe(0);
  expect(d.seen.length).toBe(role === 'prefill' ? 0 : 1);
});

test('300 clients that leave, each at another moment: nothing is left anywhere', async () => {
  const [p, d] = [await startKvServer({ role: 'prefill', leaseMs: 500 }), await startKvServer({ role: 'decode' })];
  const proxy = await startProxy([p], [d]);
  const vanish = async (i: number): Promise<void> => {
    const socket = await rawConnection(proxy);
    const body = { ...asked, prompt: promptOf(i, 30 + (i % 50)), max_tokens: 300, stream: i % 2 === 0 };
    const bytes = httpRequest(completions, { ...body, vllm_xargs: { return_routed_experts: true }, ignore_eos: true });
    socket.write(i % 7 === 0 ? bytes.slice(0, -9) : bytes);
    if (i % 7 === 1) await once(socket, 'data');
    else await new Promise((resolve) => setTimeout(resolve, i % 40));
    if (i % 3 === 0) socket.resetAndDestroy();
    else socket.destroy();
  };
  for (let from = 1; from <= 300; from += 30) {
    await Promise.all(Array.from({ length: 30 }, (_, i) => vanish(from + i)));
  }
  await expect.poll(() => proxy.numActive, { interval: 5 }).toBe(0);
  await expectNothingLeft(d);
  await expectNothingLeft(p);
  const answer = await post(proxy, completions, { prompt: [1, 2, 3], max_tokens: 2 });
  expect(answer.body.usage!.completion_tokens).toBe(2);
});

test('a client that does not read holds the server back, and is cut off in the end', async () => {
  const piece = `data: ${'x'.repeat(64 * 1024)}\n\n`;
  let numWritten = 0;
  const d = await fake(({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const write = (): void => {
      while (!response.destroyed && numWritten < 5000) {
        numWritten++;
        if (!response.write(piece)) {
          response.once('drain', write);
          return;
        }
      }
    };
    write();
  });
  for (const rows of ['with-kv', 'splice'] as const) {
    numWritten = 0;
    const kept = { ...params, remote_num_tokens: 3 };
    const p = await fake(
      json(200, { choices: [{ index: 0, routed_experts_missing: [], ...npyOfThree }], kv_transfer_params: kept }),
    );
    const proxy = await startProxy([p], [d], { rows, limits: { stallMs: 300 } });
    const socket = await rawConnection({ url: proxy.url });
    socket.pause();
    socket.write(httpRequest(completions, { ...asked, vllm_xargs: { return_routed_experts: true } }));
    await expect.poll(() => numWritten, { interval: 2 }).toBeGreaterThan(0);
    await expect.poll(() => proxy.numActive, { interval: 5 }).toBe(0);
    // What sockets and streams hold on the way: some megabytes of 320.
    expect(numWritten).toBeLessThan(1000);
    socket.destroy();
  }
});

/** Three rows of one layer and one expert. */
const npyOfThree = {
  routed_experts: Buffer.concat([
    Buffer.from('\u{93}NUMPY\u{1}\u{0}', 'latin1'),
    Buffer.from([118, 0]),
    Buffer.from("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 1, 1), }".padEnd(117, ' ') + '\n', 'latin1'),
    Buffer.from([1, 2, 3]),
  ]).toString('base64'),
};

test('as many requests as may be; drained at the end, and then cut off', async () => {
  const p = await fake(prefills);
  const d = await fake(({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n');
  });
  const proxy = await startProxy([p], [d], { limits: { maxConcurrent: 2 } });
  const headers = { 'content-type': 'application/json' };
  const open = (): Promise<Response> =>
    fetch(proxy.url + completions, { method: 'POST', headers, body: JSON.stringify(asked) });
  const [one, two] = [await open(), await open()];
  expectError(await ask(proxy), 429, 'overloaded');
  const closed = proxy.close(150);
  expectError(await ask(proxy), 503, 'draining');
  expect((await fetch(`${proxy.url}/health`)).status).toBe(503);
  d.seen[0]!.response.end('data: [DONE]\n\n');
  expect(eventsOf(await one.text()).at(-1)).toBe('[DONE]');
  await expect(two.text()).rejects.toThrow();
  await closed;
});

test('hostile requests get the answer that the server itself would give', async () => {
  const server = await startKvServer();
  const proxy = await startProxy([server], [server]);
  const bodies: readonly unknown[] = [
    '',
    'no JSON',
    '[1]',
    `{"prompt": ${'['.repeat(5000)}${']'.repeat(5000)}}`,
    {},
    { prompt: [] },
    { prompt: [-1] },
    { prompt: [1], max_tokens: -5 },
    { prompt: [1], max_tokens: 'x', max_completion_tokens: 0 },
    { prompt: [1], n: 0 },
    { prompt: [1], n: 2, best_of: 3 },
    { prompt: [1], max_tokens: 2, min_tokens: 3 },
    { prompt: [1], min_tokens: -1 },
    { prompt: [1], stream: 'yes' },
    { token_ids: [1], sampling_params: { n: 0 } },
    { token_ids: [1], sampling_params: 5 },
    { messages: [{ role: 'user', content: 'x' }], max_completion_tokens: 0 },
    { prompt: [1], model: 'gpt-5' },
    { prompt: [1], vllm_xargs: [] },
    { prompt: [1], vllm_xargs: { return_routed_experts: true, routed_experts_format: 'csv' } },
    { prompt: [1], routed_experts_prompt_start: 1 },
    '{"prompt": [1], "__proto__": {"n": 4}, "max_tokens": 0}',
    { prompt: Array(5000).fill(1) },
  ];
  for (const path of [completions, '/v1/chat/completions', '/inference/v1/generate', '/v1/nothing']) {
    for (const body of bodies) {
      const [direct, proxied] = [await post(server, path, body), await post(proxy, path, body)];
      const told = ({ status, body: { error } }: typeof direct): unknown => [
        path,
        body,
        status,
        error?.param,
        error?.code,
      ];
      expect(told(proxied)).toEqual(told(direct));
    }
  }
  // What is refused keeps no KV on the way.
  expect(server.host.kv!.numKept).toBe(0);
  const mine = await post(proxy, completions, { prompt: [1], kv_transfer_params: { do_remote_prefill: true } });
  expect([mine.status, mine.body.error.param]).toEqual([400, 'kv_transfer_params']);
});

test('models are those of the servers, with the client’s key', async () => {
  const server = closeAfterTest(await startServer({ apiKey: 'key' }));
  const proxy = await startProxy([server], [server]);
  const models = async (headers: Record<string, string>): Promise<unknown> => {
    const answer = await fetch(`${proxy.url}/v1/models`, { headers });
    const body = (await answer.json()) as WireBody & { data?: readonly { id: string }[] };
    return [answer.status, body.data?.[0]?.id ?? body.error.code];
  };
  expect(await models({ authorization: 'Bearer key' })).toEqual([200, 'tiny']);
  expect(await models({})).toEqual([401, 'invalid_api_key']);
});
