// The official client against the server: completions, chat, streams, aborts; tokens and rows are the oracle's (L1,
// L2).

import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Server } from '../../src/serve/server.ts';
import { ByteTokenizer } from '../../src/serve/body/tokenizer.ts';
import type { DecodedRows, WireChoice } from './helpers.ts';
import {
  closeAfterTest,
  decodeNpy,
  decodeLists,
  decodeNrlre1,
  decodePacked,
  decodeSigned,
  decodeObject,
  decodeSglang,
  expectNothingLeft,
  expectOracle,
  post,
  promptIdsOf,
  startServer,
  tiny,
  wire,
} from './helpers.ts';

let server: Server;
let client: OpenAI;
const tokenizer = new ByteTokenizer(tiny.vocabSize);
const withRows = { vllm_xargs: { return_routed_experts: true }, return_token_ids: true, ignore_eos: true };

beforeAll(async () => {
  server = await startServer({ apiKey: 'secret' });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'secret', maxRetries: 0 });
});

afterAll(async () => {
  await expectNothingLeft(server);
  await server.close(0);
});

/** The client's types know OpenAI's fields only. */
const extra = (fields: object): object => fields;
const promptOf = (seed: number, length: number): number[] =>
  Array.from({ length }, (_, i) => (seed * 31 + i * 17) % 97);

/** A choice whose tokens and rows are the oracle's. */
async function askChecked(fields: object): Promise<WireChoice> {
  const answer = wire(
    await client.completions.create({
      model: 'tiny',
      prompt: promptOf(4, 6),
      max_tokens: 300,
      ...extra({ ...withRows, ...fields }),
    }),
  );
  const choice = answer.choices[0]!;
  expectOracle(promptOf(4, 6), choice.token_ids, decodeNpy(choice.routed_experts));
  return choice;
}

describe('completions', () => {
  test.each([
    ['text', 'Hello, wörld 🌍', tokenizer.encode('Hello, wörld 🌍')],
    ['token ids', [5, 96, 0, 17], [5, 96, 0, 17]],
  ] as const)('of %s', async (_, prompt, promptTokens) => {
    const answer = wire(
      await client.completions.create({
        model: 'tiny',
        prompt: prompt as string,
        max_tokens: 20,
        ...extra(withRows),
      }),
    );
    const choice = answer.choices[0]!;
    expect(answer.object).toBe('text_completion');
    expect(choice.finish_reason).toBe('length');
    expect(choice.text).toBe(tokenizer.decode(choice.token_ids));
    expect(choice.prompt_token_ids).toEqual(Array.from(promptTokens));
    expect(choice.routed_experts_missing).toEqual([]);
    expectOracle(promptTokens, choice.token_ids, decodeNpy(choice.routed_experts));
    expect(answer.usage).toMatchObject({
      prompt_tokens: promptTokens.length,
      completion_tokens: 20,
      total_tokens: promptTokens.length + 20,
    });
  });

  test('lists of prompts times n: every choice in its place', async () => {
    const prompts = [promptOf(1, 9), promptOf(2, 30), promptOf(3, 1)];
    const answer = wire(
      await client.completions.create({
        model: 'tiny',
        prompt: prompts,
        n: 3,
        max_tokens: 7,
        ...extra(withRows),
      }),
    );
    expect(answer.choices.map((choice: WireChoice) => choice.index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    for (const choice of answer.choices) {
      const prompt = prompts[Math.floor(choice.index / 3)]!;
      expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts));
    }
    expect(answer.usage).toMatchObject({ prompt_tokens: 40, completion_tokens: 63 });
  });

  test('a list of strings', async () => {
    const answer = await client.completions.create({ model: 'tiny', prompt: ['a', 'bc'], max_tokens: 2 });
    expect(answer.choices.length).toBe(2);
  });

  test('no rows unless asked for', async () => {
    const answer = wire(await client.completions.create({ model: 'tiny', prompt: 'x' }));
    expect(answer.choices[0]).not.toHaveProperty('routed_experts');
    expect(answer.choices[0]).not.toHaveProperty('routed_experts_missing');
  });

  test('stop tokens, min_tokens and EOS', async () => {
    const all = await askChecked({});
    expect(all.token_ids.length).toBe(300);
    const third = all.token_ids[2]!;
    const firstAt = all.token_ids.indexOf(third);
    const stopped = await askChecked({ stop_token_ids: [third] });
    expect(stopped).toMatchObject({ finish_reason: 'stop', stop_reason: third });
    expect(stopped.token_ids).toEqual(all.token_ids.slice(0, firstAt + 1));
    const later = all.token_ids.indexOf(third, firstAt + 1);
    if (later > 0) {
      const atLeast = await askChecked({ stop_token_ids: [third], min_tokens: firstAt + 2 });
      expect(atLeast.token_ids).toEqual(all.token_ids.slice(0, later + 1));
    }
    const eosAt = all.token_ids.indexOf(96);
    const ended = await askChecked({ ignore_eos: false });
    if (eosAt >= 0) expect(ended).toMatchObject({ finish_reason: 'stop', stop_reason: null });
    expect(ended.token_ids.length).toBe(eosAt >= 0 ? eosAt + 1 : 300);
  });
});

describe('routed experts', () => {
  test.each([0, 1, 7, 19])('from position %i on, over a cached prefix', async (start) => {
    const prompt = promptOf(5, 20);
    for (let round = 0; round < 2; round++) {
      const answer = wire(
        await client.completions.create({
          model: 'tiny',
          prompt,
          max_tokens: 5,
          ...extra({ ...withRows, routed_experts_prompt_start: start }),
        }),
      );
      const choice = answer.choices[0]!;
      expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts), start);
      if (round === 1) expect(answer.usage!.prompt_tokens_details.cached_tokens).toBeGreaterThan(0);
    }
  });

  test.each([
    ['npy', (choice: WireChoice) => decodeNpy(choice.routed_experts)],
    ['sglang', (choice: WireChoice) => decodeSglang(choice.meta_info, tiny.numLayers, tiny.topK)],
    ['object', (choice: WireChoice) => decodeObject(choice.routed_experts)],
    ['nrlre1', (choice: WireChoice) => decodeNrlre1(choice.routed_experts)],
    ['signed', (choice: WireChoice) => decodeSigned(choice.routed_experts)],
    ['lists', (choice: WireChoice) => decodeLists(choice.routed_experts as never)],
    ['packed', (choice: WireChoice) => decodePacked(Buffer.from(choice.routed_experts, 'base64'))],
  ] as const)('as %s, in the body and in a stream', async (format, decode: (choice: WireChoice) => DecodedRows) => {
    const prompt = promptOf(6, 11);
    const xargs = { return_routed_experts: true, routed_experts_format: format, routed_experts_prompt_start: 3 };
    const fields = extra({ vllm_xargs: xargs, return_token_ids: true, ignore_eos: true });
    const body = { model: 'tiny', prompt, max_tokens: 9, ...fields };
    const answer = wire(await client.completions.create(body));
    expectOracle(prompt, answer.choices[0]!.token_ids, decode(answer.choices[0]!), 3);
    const tokens: number[] = [];
    let last: WireChoice | null = null;
    for await (const chunk of await client.completions.create({ ...body, stream: true })) {
      last = wire(chunk).choices[0]!;
      tokens.push(...last.token_ids);
    }
    expectOracle(prompt, tokens, decode(last!), 3);
  });

  test('are declared missing, not made up, where a policy does not compute them', async () => {
    const poor = closeAfterTest(await startServer({ host: { prefixRows: 'computed-only' } }));
    const body = { prompt: promptOf(7, 21), max_tokens: 3, ...withRows };
    await post(poor, '/v1/completions', body);
    const { body: answer } = await post(poor, '/v1/completions', body);
    const choice = answer.choices[0]!;
    expect(choice.routed_experts_missing).toEqual([[0, 20]]);
    const { shape, ids } = decodeNpy(choice.routed_experts);
    expect(shape[0]).toBe(23);
    expect(ids.slice(0, 20 * 4).every((id) => id === 255)).toBe(true);
  });
});

describe('chat', () => {
  test('answers, with the template’s tokens as prompt', async () => {
    const answer = wire(
      await client.chat.completions.create({
        model: 'tiny',
        messages: [
          { role: 'system', content: 'Be brief.' },
          {
            role: 'user',
            content: [
              { type: 'text', text: 'Hi' },
              { type: 'text', text: '!' },
            ],
          },
        ],
        max_completion_tokens: 6,
        ...extra(withRows),
      }),
    );
    const choice = answer.choices[0]!;
    expect(answer.object).toBe('chat.completion');
    expect(choice.message).toMatchObject({ role: 'assistant', content: tokenizer.decode(choice.token_ids) });
    const prompt = promptIdsOf(answer);
    expect(tokenizer.decode(prompt)).toBe('system: Be brief.\nuser: Hi!\nassistant: ');
    expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts));
  });

  test('streams n choices with usage; the last chunk of each has its rows', async () => {
    const stream = await client.chat.completions.create({
      model: 'tiny',
      messages: [{ role: 'user', content: 'stream to me' }],
      n: 2,
      max_tokens: 12,
      stream: true,
      stream_options: { include_usage: true },
      ...extra(withRows),
    });
    const text = ['', ''];
    const tokens: number[][] = [[], []];
    const ends: WireChoice[] = [];
    let prompt: readonly number[] = [];
    let usage: unknown = null;
    for await (const chunk of stream) {
      if (chunk.usage) usage = chunk.usage;
      for (const choice of wire(chunk).choices) {
        if (tokens[choice.index]!.length === 0) {
          expect(choice.delta.role).toBe('assistant');
          prompt = promptIdsOf(wire(chunk));
        }
        text[choice.index] += choice.delta.content;
        tokens[choice.index]!.push(...choice.token_ids);
        if (choice.finish_reason !== null) ends[choice.index] = choice;
        else expect(choice).not.toHaveProperty('routed_experts');
      }
    }
    for (const index of [0, 1]) {
      expect(text[index]).toBe(tokenizer.decode(tokens[index]!));
      expectOracle(prompt, tokens[index]!, decodeNpy(ends[index]!.routed_experts));
    }
    expect(usage).toMatchObject({ prompt_tokens: prompt.length, completion_tokens: 24 });
  });
});

describe('tokens in, tokens out', () => {
  test('answers and streams', async () => {
    const prompt = promptOf(8, 13);
    const headers = { authorization: 'Bearer secret', 'x-request-id': 'from-the-header' };
    const params = { max_tokens: 8, ignore_eos: true, extra_args: { return_routed_experts: true } };
    const answer = await post(
      server,
      '/inference/v1/generate',
      { token_ids: prompt, sampling_params: params },
      headers,
    );
    expect(answer.body.request_id).toBe('from-the-header');
    const choice = answer.body.choices[0]!;
    expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts));
  });
});

describe('the client itself', () => {
  test('lists the models', async () => {
    const { data } = await client.models.list();
    expect(data).toMatchObject([{ id: 'tiny', max_model_len: 4096 }]);
  });

  test.each([
    [
      'a wrong key',
      async () => new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'wrong', maxRetries: 0 }).models.list(),
      OpenAI.AuthenticationError,
    ],
    ['an unknown model', () => client.completions.create({ model: 'gpt-5', prompt: 'x' }), OpenAI.NotFoundError],
    ['a bad request', () => client.completions.create({ model: 'tiny', prompt: '' }), OpenAI.BadRequestError],
  ] as const)('tells %s by its class', async (_, ask: () => Promise<unknown>, kind) => {
    await expect(ask()).rejects.toBeInstanceOf(kind);
  });

  test('aborts a stream: the request ends in the engine', async () => {
    const stream = await client.completions.create({
      model: 'tiny',
      prompt: 'abort me',
      max_tokens: 4000,
      stream: true,
      ...extra(withRows),
    });
    let numChunks = 0;
    for await (const _ of stream) if (++numChunks === 3) stream.controller.abort();
    expect(numChunks).toBeLessThan(4000);
    await expectNothingLeft(server);
    expect(server.host.engine.stats().numScheduledTokens).toBeLessThan(20_000);
  });

  test('aborts a request that is not streamed', async () => {
    const abort = new AbortController();
    const answer = client.completions.create(
      { model: 'tiny', prompt: 'abort me too', max_tokens: 4000, ...extra(withRows) },
      { signal: abort.signal },
    );
    await expect.poll(() => server.host.engine.stats().numRunning, { interval: 2 }).toBe(1);
    abort.abort();
    await expect(answer).rejects.toBeInstanceOf(OpenAI.APIUserAbortError);
    await expectNothingLeft(server);
  });
});
