// Malformed and hostile requests: each gets its 4xx with OpenAI's error body, the server serves the next request, and
// nothing is left behind.

import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Server } from '../../src/serve/server.ts';
import type { WireBody } from './helpers.ts';
import {
  closeAfterTest,
  expectNothingLeft,
  httpRequest,
  post,
  rawConnection,
  readAll,
  startServer,
} from './helpers.ts';

const BODY_BYTES = 200_000;
const HEADER_BYTES = 4096;
const MAX_CHOICES = 8;

let server: Server;

beforeAll(async () => {
  server = await startServer({
    limits: {
      bodyBytes: BODY_BYTES,
      headerBytes: HEADER_BYTES,
      headersMs: 300,
      requestMs: 400,
      maxConcurrent: MAX_CHOICES,
    },
  });
});

afterAll(async () => {
  await expectNothingLeft(server);
  await server.close(0);
});

async function expectServed(): Promise<void> {
  const { status, body } = await post(server, '/v1/completions', { prompt: 'still there?', max_tokens: 2 });
  expect(status).toBe(200);
  expect(body.choices.length).toBe(1);
}

function expectErrorBody(given: unknown): void {
  const body = given as WireBody;
  expect(Object.keys(body)).toEqual(['error']);
  expect(Object.keys(body.error)).toEqual(['message', 'type', 'param', 'code']);
  expect(body.error.message.length).toBeGreaterThan(10);
  expect(body.error.message.length).toBeLessThan(500);
}

const completions = '/v1/completions';
const chat = '/v1/chat/completions';
const generate = '/inference/v1/generate';
const hello = [{ role: 'user', content: 'hello' }];
const deep = (open: string, close: string, depth: number): string => open.repeat(depth) + close.repeat(depth);

/** [what, path, body, status, param] */
const bodies: readonly (readonly [what: string, path: string, body: unknown, status: number, param: string | null])[] =
  [
    ['no body', completions, '', 400, null],
    ['no JSON', completions, 'hello', 400, null],
    ['cut JSON', completions, '{"prompt": "hel', 400, null],
    ['JSON with a comment', completions, '{"prompt": "x" /* y */}', 400, null],
    ['NaN', completions, '{"prompt": "x", "max_tokens": NaN}', 400, null],
    ['a JSON list', completions, '[1]', 400, null],
    ['a JSON string', completions, '"x"', 400, null],
    ['JSON null', completions, 'null', 400, null],
    ['bytes that are no UTF-8', completions, Uint8Array.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]), 400, null],
    ['UTF-16', completions, Buffer.from('{"prompt":"x"}', 'utf16le'), 400, null],
    ['a NUL byte', completions, '\u{0}', 400, null],
    ['lists nested 100,000 deep', completions, `{"prompt": ${deep('[', ']', 90_000)}}`, 400, null],
    ['objects nested 10,000 deep', completions, `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`, 400, null],
    ['a body over the limit', completions, { prompt: 'x'.repeat(BODY_BYTES) }, 413, null],
    ['no prompt', completions, {}, 400, 'prompt'],
    ['a null prompt', completions, { prompt: null }, 400, 'prompt'],
    ['an empty prompt', completions, { prompt: '' }, 400, 'prompt'],
    ['an empty list of tokens', completions, { prompt: [] }, 400, 'prompt'],
    ['an empty prompt in a list', completions, { prompt: ['a', ''] }, 400, 'prompt[1]'],
    ['a number as prompt', completions, { prompt: 5 }, 400, 'prompt'],
    ['an object as prompt', completions, { prompt: { text: 'x' } }, 400, 'prompt'],
    ['tokens and strings mixed', completions, { prompt: [1, 'a'] }, 400, 'prompt[1]'],
    ['lists and tokens mixed', completions, { prompt: [[1], 2] }, 400, 'prompt[1]'],
    ['a negative token', completions, { prompt: [1, -1] }, 400, 'prompt[1]'],
    ['a token beyond the vocabulary', completions, { prompt: [97] }, 400, 'prompt[0]'],
    ['a fraction as token', completions, { prompt: [1.5] }, 400, 'prompt[0]'],
    ['null as token', completions, { prompt: [null] }, 400, 'prompt[0]'],
    ['a token of 10^300', completions, '{"prompt": [1e300]}', 400, 'prompt[0]'],
    ['a token of 10^400', completions, '{"prompt": [1e400]}', 400, 'prompt[0]'],
    ['a lone surrogate', completions, String.raw`{"prompt": "\ud800"}`, 400, 'prompt'],
    ['a prompt as long as the model', completions, { prompt: Array(4096).fill(1) }, 400, null],
    ['a prompt longer than the model', completions, { prompt: Array(5000).fill(1) }, 400, 'prompt'],
    ['a text longer than the model', completions, { prompt: 'x'.repeat(100_000) }, 400, 'prompt'],
    ['more prompts than may be', completions, { prompt: Array(MAX_CHOICES + 1).fill('x') }, 400, 'prompt'],
    ['more choices than may be', completions, { prompt: ['a', 'b'], n: MAX_CHOICES }, 400, 'n'],
    ['n = 0', completions, { prompt: 'x', n: 0 }, 400, 'n'],
    ['n = 10^6', completions, { prompt: 'x', n: 1_000_000 }, 400, 'n'],
    ['n = "2"', completions, { prompt: 'x', n: '2' }, 400, 'n'],
    ['best_of ≠ n', completions, { prompt: 'x', best_of: 3 }, 400, 'best_of'],
    ['max_tokens = 0', completions, { prompt: 'x', max_tokens: 0 }, 400, 'max_tokens'],
    ['max_tokens = −5', completions, { prompt: 'x', max_tokens: -5 }, 400, 'max_tokens'],
    ['max_tokens = 1.5', completions, { prompt: 'x', max_tokens: 1.5 }, 400, 'max_tokens'],
    ['max_tokens = 2^60', completions, '{"prompt": "x", "max_tokens": 1152921504606846976}', 400, 'max_tokens'],
    ['max_tokens as a list', completions, { prompt: 'x', max_tokens: [1] }, 400, 'max_tokens'],
    ['min_tokens over max_tokens', completions, { prompt: 'x', max_tokens: 3, min_tokens: 4 }, 400, 'min_tokens'],
    ['min_tokens = −1', completions, { prompt: 'x', min_tokens: -1 }, 400, 'min_tokens'],
    [
      'a stop token beyond the vocabulary',
      completions,
      { prompt: 'x', stop_token_ids: [97] },
      400,
      'stop_token_ids[0]',
    ],
    ['stop tokens as a string', completions, { prompt: 'x', stop_token_ids: '5' }, 400, 'stop_token_ids'],
    ['too many stop tokens', completions, { prompt: 'x', stop_token_ids: Array(1025).fill(1) }, 400, 'stop_token_ids'],
    ['ignore_eos = 1', completions, { prompt: 'x', ignore_eos: 1 }, 400, 'ignore_eos'],
    ['stream = "yes"', completions, { prompt: 'x', stream: 'yes' }, 400, 'stream'],
    ['stream_options as a list', completions, { prompt: 'x', stream: true, stream_options: [] }, 400, 'stream_options'],
    [
      'include_usage = 1',
      completions,
      { prompt: 'x', stream: true, stream_options: { include_usage: 1 } },
      400,
      'stream_options.include_usage',
    ],
    ['temperature = "hot"', completions, { prompt: 'x', temperature: 'hot' }, 400, 'temperature'],
    ['top_p = 2', completions, { prompt: 'x', top_p: 2 }, 400, 'top_p'],
    ['seed = "x"', completions, { prompt: 'x', seed: 'x' }, 400, 'seed'],
    ['a priority, first come first served', completions, { prompt: 'x', priority: 1 }, 400, 'priority'],
    ['an empty cache_salt', completions, { prompt: 'x', cache_salt: '' }, 400, 'cache_salt'],
    [
      'a cache_salt of 10,000 characters',
      completions,
      { prompt: 'x', cache_salt: 's'.repeat(10_000) },
      400,
      'cache_salt',
    ],
    ['a request_id with a line break', completions, { prompt: 'x', request_id: 'a\nb' }, 400, 'request_id'],
    ['a request_id as a number', completions, { prompt: 'x', request_id: 7 }, 400, 'request_id'],
    ['stop strings', completions, { prompt: 'x', stop: ['\n'] }, 400, 'stop'],
    ['too many logprobs', completions, { prompt: 'x', logprobs: 21 }, 400, 'logprobs'],
    ['top_logprobs alone', chat, { messages: hello, top_logprobs: 2 }, 400, 'top_logprobs'],
    ['echo', completions, { prompt: 'x', echo: true }, 400, 'echo'],
    ['an unknown model', completions, { prompt: 'x', model: 'gpt-5' }, 404, 'model'],
    ['a model that is no string', completions, { prompt: 'x', model: {} }, 400, 'model'],
    ['xargs as a list', completions, { prompt: 'x', vllm_xargs: [] }, 400, 'vllm_xargs'],
    [
      'an opt-in of "yes"',
      completions,
      { prompt: 'x', vllm_xargs: { return_routed_experts: 'yes' } },
      400,
      'vllm_xargs.return_routed_experts',
    ],
    [
      'an unknown format',
      completions,
      { prompt: 'x', vllm_xargs: { return_routed_experts: true, routed_experts_format: 'csv' } },
      400,
      'vllm_xargs.routed_experts_format',
    ],
    [
      'a format called __proto__',
      completions,
      { prompt: 'x', vllm_xargs: { return_routed_experts: true, routed_experts_format: '__proto__' } },
      400,
      'vllm_xargs.routed_experts_format',
    ],
    [
      'a prompt_start of −1',
      completions,
      { prompt: 'x', routed_experts_prompt_start: -1 },
      400,
      'routed_experts_prompt_start',
    ],
    [
      'a prompt_start at the prompt’s end',
      completions,
      { prompt: [1, 2, 3], vllm_xargs: { return_routed_experts: true, routed_experts_prompt_start: 3 } },
      400,
      'routed_experts_prompt_start',
    ],
    [
      'a prompt_start behind one of the prompts',
      completions,
      { prompt: [[1, 2, 3], [1]], vllm_xargs: { return_routed_experts: true }, routed_experts_prompt_start: 2 },
      400,
      'routed_experts_prompt_start',
    ],
    [
      'KV parameters',
      completions,
      { prompt: 'x', kv_transfer_params: { do_remote_prefill: true } },
      400,
      'kv_transfer_params',
    ],
    ['no messages', chat, {}, 400, 'messages'],
    ['an empty list of messages', chat, { messages: [] }, 400, 'messages'],
    ['messages as a string', chat, { messages: 'hello' }, 400, 'messages'],
    ['a message as a string', chat, { messages: ['hello'] }, 400, 'messages[0]'],
    ['an unknown role', chat, { messages: [{ role: 'root', content: 'x' }] }, 400, 'messages[0].role'],
    ['content as a number', chat, { messages: [{ role: 'user', content: 5 }] }, 400, 'messages[0].content'],
    [
      'an image',
      chat,
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
      400,
      'messages[0].content[0]',
    ],
    ['a tool that must be called', chat, { messages: hello, tool_choice: 'required' }, 400, 'tool_choice'],
    ['a JSON schema', chat, { messages: hello, response_format: { type: 'json_schema' } }, 400, 'response_format'],
    ['no token_ids', generate, { sampling_params: {} }, 400, 'token_ids'],
    ['token_ids as text', generate, { token_ids: 'x' }, 400, 'token_ids'],
    ['sampling_params as a list', generate, { token_ids: [1], sampling_params: [] }, 400, 'sampling_params'],
    [
      'a wrong sampling parameter',
      generate,
      { token_ids: [1], sampling_params: { max_tokens: -1 } },
      400,
      'sampling_params.max_tokens',
    ],
  ];

describe('a body', () => {
  test.each(bodies)('%s', async (_, path, body, status, param) => {
    const answer = await post(server, path, body);
    expect([answer.status, answer.body.error.param]).toEqual([status, param]);
    expectErrorBody(answer.body);
    await expectServed();
  });

  test('with unknown fields, some of them the prototype’s, is served', async () => {
    const text =
      '{"prompt": "x", "max_tokens": 1, "__proto__": {"n": 4}, "constructor": 1, "toString": 2, "user": "me"}';
    const { status, body } = await post(server, completions, text);
    expect(status).toBe(200);
    expect(body.choices.length).toBe(1);
  });

  test('with null for every field that can be left out is served', async () => {
    const fields = [
      'model',
      'n',
      'max_tokens',
      'stop',
      'stream',
      'seed',
      'vllm_xargs',
      'logprobs',
      'kv_transfer_params',
    ];
    const { status } = await post(server, completions, {
      prompt: 'x',
      ...Object.fromEntries(fields.map((f) => [f, null])),
    });
    expect(status).toBe(200);
  });
});

describe('a header', () => {
  test.each([
    ['a form', { 'content-type': 'application/x-www-form-urlencoded' }, 415],
    ['text', { 'content-type': 'text/plain' }, 415],
    ['a content type that is none', { 'content-type': 'nonsense' }, 415],
    ['UTF-16', { 'content-type': 'application/json; charset=utf-16' }, 415],
    ['gzip', { 'content-encoding': 'gzip' }, 415],
  ] as const)('that says %s', async (_, headers, status) => {
    const answer = await post(server, completions, { prompt: 'x' }, headers);
    expect(answer.status).toBe(status);
    expectErrorBody(answer.body);
    await expectServed();
  });

  test.each([
    ['no key', {}],
    ['a wrong key', { authorization: 'Bearer wrong' }],
    ['another scheme', { authorization: 'Basic a2V5' }],
    ['a prefix of the key', { authorization: 'Bearer ke' }],
    ['a very long key', { authorization: `Bearer ${'k'.repeat(3000)}` }],
  ])('with %s is refused before the body is read', async (_, headers) => {
    const locked = closeAfterTest(await startServer({ apiKey: 'key' }));
    for (const path of [completions, chat, generate, '/v1/nothing', '/V1/../v1/completions']) {
      const answer = await post(locked, path, 'no JSON', headers);
      expect([401, 404]).toContain(answer.status);
      expectErrorBody(answer.body);
    }
    expect((await post(locked, completions, 'no JSON', headers)).status).toBe(401);
    expect((await fetch(`${locked.url}/health`)).status).toBe(200);
    expect((await post(locked, completions, { prompt: 'x' }, { authorization: 'Bearer key' })).status).toBe(200);
  });
});

describe('a path', () => {
  test.each([
    ['GET', '/', 404],
    ['GET', '/v1', 404],
    ['GET', '/v1/completions', 405],
    ['DELETE', '/v1/completions', 405],
    ['POST', '/v1/models', 405],
    ['POST', '/v1/completions/', 404],
    ['GET', '/v1/%2e%2e/%2e%2e/etc/passwd', 404],
    ['GET', '/%00', 404],
    ['GET', '/%zz', 400],
    ['GET', `/${'a'.repeat(2000)}`, 404],
    ['OPTIONS', '/v1/completions', 405],
  ])('%s %s', async (method, path, status) => {
    const response = await fetch(server.url + path, { method });
    expect(response.status).toBe(status);
    expectErrorBody(await response.json());
    await expectServed();
  });
});

describe('raw bytes', () => {
  const valid = httpRequest(completions, { prompt: 'x' });
  test.each([
    ['no HTTP', 'hello\r\n\r\n', 400],
    ['TLS', '\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\r\n\r\n', 400],
    ['an unknown method', 'BREW /v1/models HTTP/1.1\r\nhost: x\r\n\r\n', 400],
    ['HTTP/9.9', 'GET /health HTTP/9.9\r\nhost: x\r\n\r\n', 400],
    ['no host', 'GET /health HTTP/1.1\r\n\r\n', 400],
    ['a header without a name', 'GET /health HTTP/1.1\r\nhost: x\r\n: y\r\n\r\n', 400],
    ['a NUL in a header', 'GET /health HTTP/1.1\r\nhost: x\r\na: \u{0}\r\n\r\n', 400],
    ['headers over the limit', `GET /health HTTP/1.1\r\nhost: x\r\na: ${'y'.repeat(HEADER_BYTES)}\r\n\r\n`, 431],
    ['a path over the limit', `GET /${'y'.repeat(HEADER_BYTES)} HTTP/1.1\r\nhost: x\r\n\r\n`, 431],
    ['two lengths', valid.replace('content-length', 'content-length: 3\r\ncontent-length'), 400],
    ['a length and chunks', valid.replace('host: test', 'host: test\r\ntransfer-encoding: chunked'), 400],
    ['a negative length', 'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n', 400],
    [
      'a chunk that is none',
      'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n' +
        'transfer-encoding: chunked\r\n\r\nzz\r\n',
      400,
    ],
    ['headers that never end', 'GET /health HTTP/1.1\r\nhost: x\r\n', 408],
    [
      'a body that never ends',
      'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"prom',
      408,
    ],
  ])('%s', async (_, bytes, status) => {
    const socket = await rawConnection(server);
    socket.write(bytes, 'latin1');
    const text = await readAll(socket);
    expect(text.slice(0, 12)).toBe(`HTTP/1.1 ${status}`);
    if (text.includes('application/json')) expectErrorBody(JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4)));
    await expectServed();
  });

  test('a length that promises more than the limit is refused before it is sent', async () => {
    const socket = await rawConnection(server);
    socket.write(
      `POST ${completions} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n` +
        `content-length: 99999999999\r\n\r\n`,
    );
    const [first] = (await once(socket, 'data')) as [Buffer];
    expect(first.toString().slice(0, 12)).toBe('HTTP/1.1 413');
    socket.destroy();
    await expectServed();
  });

  test('requests one behind the other on one connection are answered in order', async () => {
    const socket = await rawConnection(server);
    socket.write(
      valid +
        httpRequest(completions, { prompt: '' }) +
        'GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n',
    );
    const text = await readAll(socket);
    expect([...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map((match) => match[1])).toEqual(['200', '400', '200']);
  });
});

describe('too much', () => {
  test('more requests than may be get 429 and Retry-After; what runs goes on', async () => {
    const long = { prompt: 'x', max_tokens: 500, ignore_eos: true };
    const running = Array.from({ length: MAX_CHOICES }, () => post(server, completions, long));
    await expect.poll(() => server.numActive, { interval: 1 }).toBe(MAX_CHOICES);
    const refused = await post(server, completions, { prompt: 'x' });
    expect(refused.status).toBe(429);
    expect(refused.headers.get('retry-after')).toBe('1');
    expectErrorBody(refused.body);
    for (const { status, body } of await Promise.all(running)) {
      expect(status).toBe(200);
      expect(body.usage!.completion_tokens).toBe(500);
    }
    await expectServed();
  });

  test('an id that is in use', async () => {
    const first = post(server, completions, { prompt: 'x', max_tokens: 400, ignore_eos: true, request_id: 'same' });
    await expect.poll(() => server.numActive, { interval: 1 }).toBe(1);
    const second = await post(server, completions, { prompt: 'x', request_id: 'same' });
    expect([second.status, second.body.error.code]).toEqual([400, 'duplicate_request_id']);
    expect((await first).status).toBe(200);
  });
});

test('fields that mean nothing here are named in the log, but no more of them than fit a line', async () => {
  const lines: string[] = [];
  const logged = closeAfterTest(
    await startServer({ logLevel: 'info', log: { write: (line: string) => void lines.push(line) } }),
  );
  const many = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`unknown${i}`, i]));
  const xargs = { return_routed_expert: true };
  await post(logged, completions, { prompt: 'x', max_tokens: 1, vllm_xargs: xargs, user: 'me' });
  await post(logged, completions, { prompt: 'x', max_tokens: 1, ...many });
  await expect.poll(() => lines.filter((line) => line.includes('"msg":"request"')).length, { interval: 2 }).toBe(2);
  const requests = lines.filter((line) => line.includes('"msg":"request"')).map((line) => JSON.parse(line) as object);
  expect(requests[0]).toMatchObject({
    status: 200,
    completionTokens: 1,
    finishReasons: ['length'],
    ignoredFields: ['user', 'vllm_xargs.return_routed_expert'],
  });
  expect((requests[1] as { ignoredFields: string[] }).ignoredFields.length).toBe(20);
});
