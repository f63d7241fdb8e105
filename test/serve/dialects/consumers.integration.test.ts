// Each consumer's requests, as its client sends them, and its answers, read by its rules: tokens, log-probabilities and
// rows are the oracle's. What the clients do is in consumers.ts.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { modelPreset } from '../../../src/kernels/model/model-presets.ts';
import { oracle, Oracle } from '../../../src/kernels/model/oracle.ts';
import { Router } from '../../../src/kernels/model/route/route.ts';
import type { Server } from '../../../src/serve/server.ts';
import { decodeNpy, eventsOf, expectNothingLeft, expectOracle, startServer, tiny } from '../helpers.ts';
import {
  arealRows,
  contentLogprobs,
  milesTurn,
  nemoTurn,
  skyrlRows,
  slimeSample,
  verifiersRows,
  type Json,
  type ReadRows,
} from './consumers.ts';

const WIDTH = tiny.numLayers * tiny.topK;
const SESSION = { 'x-session-id': 'trajectory-7' };

let server: Server;

beforeAll(async () => {
  server = await startServer({ isEveryRowReturned: true, engine: { maxModelLen: 512 } });
});

afterAll(async () => {
  await expectNothingLeft(server);
  await server.close(0);
});

const promptOf = (seed: number, length: number): number[] =>
  Array.from({ length }, (_, i) => (seed * 41 + i * 13) % 97);

async function send(path: string, body: unknown, headers: Record<string, string> = {}): Promise<[number, string]> {
  const response = await fetch(server.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  return [response.status, await response.text()];
}

async function ask(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Json> {
  const [status, text] = await send(path, body, headers);
  expect([status, status === 200 ? '' : text]).toEqual([200, '']);
  return JSON.parse(text) as Json;
}

const choiceOf = (answer: Json): Json => (answer['choices'] as readonly Json[])[0]!;

/** Rows of the positions from `start` on are the oracle's, and so are the tokens. */
function expectRows(prompt: readonly number[], output: readonly number[], rows: ReadRows, start = 0): void {
  const shape = [rows.count, tiny.numLayers, tiny.topK];
  expectOracle(prompt, output, { shape, ids: rows.ids }, start);
}

/** Each log-probability is the oracle's, of its token behind the tokens before it. */
function expectLogprobs(prompt: readonly number[], output: readonly number[], logprobs: readonly number[]): void {
  const model = new Oracle(new Router(tiny));
  for (const token of prompt) model.push(token);
  const expected = output.map((token) => {
    const logprob = model.logprobs().of(token);
    model.push(token);
    return logprob;
  });
  expect(logprobs).toEqual(expected);
}

describe('SGLang’s /generate', () => {
  const params = {
    max_new_tokens: 9,
    temperature: 1,
    top_p: 1,
    top_k: -1,
    skip_special_tokens: false,
    spaces_between_special_tokens: false,
    no_stop_trim: true,
    stop: null,
    stop_token_ids: null,
    ignore_eos: true,
  };

  test('slime: a sample, and the same resumed with all its tokens', async () => {
    const prompt = promptOf(1, 12);
    const body = { sampling_params: params, return_logprob: true, return_routed_experts: true };
    const headers = { 'x-smg-routing-key': 'session' };
    const first = slimeSample(await ask('/generate', { input_ids: prompt, ...body }, headers), {
      numPrompt: 12,
      start: 0,
      width: WIDTH,
    });
    expect([first.finish, first.version]).toEqual(['length', 'default']);
    expectRows(prompt, first.tokens, first.rows);
    expectLogprobs(prompt, first.tokens, first.logprobs);
    const all = [...prompt, ...first.tokens];
    const answer = await ask('/generate', { input_ids: all, ...body, routed_experts_start_len: all.length - 1 });
    const second = slimeSample(answer, { numPrompt: all.length, start: all.length - 1, width: WIDTH });
    expectRows(all, second.tokens, second.rows, all.length - 1);
  });

  test('a start at the end of the prompt, zero new rows, and one behind it', async () => {
    const prompt = promptOf(2, 8);
    const body = { input_ids: prompt, return_logprob: true, return_routed_experts: true };
    const atEnd = await ask('/generate', {
      ...body,
      routed_experts_start_len: 8,
      sampling_params: { max_new_tokens: 5, ignore_eos: true },
    });
    const sample = slimeSample(atEnd, { numPrompt: 8, start: 8, width: WIDTH });
    expectRows(prompt, sample.tokens, sample.rows, 8);
    const none = await ask('/generate', {
      ...body,
      routed_experts_start_len: 8,
      sampling_params: { max_new_tokens: 1 },
    });
    expect((none['meta_info'] as Json)['routed_experts']).toBe('');
    const [status, text] = await send('/generate', { ...body, routed_experts_start_len: 9 });
    expect([status, JSON.parse(text).error.message]).toEqual([400, expect.stringMatching(/\[0, 8\]/)]);
  });

  test('a stream is cumulative, and its last event has rows and finish reason', async () => {
    const prompt = promptOf(3, 10);
    const [, text] = await send('/generate', {
      input_ids: prompt,
      stream: true,
      return_logprob: true,
      return_routed_experts: true,
      sampling_params: params,
    });
    const events = eventsOf(text);
    expect(events.pop()).toBe('[DONE]');
    const answers = events.map((event) => JSON.parse(event) as Json);
    for (const answer of answers.slice(0, -1)) expect((answer['meta_info'] as Json)['finish_reason']).toBe(null);
    const last = slimeSample(answers.at(-1)!, { numPrompt: 10, start: 0, width: WIDTH });
    expect(last.tokens).toEqual(answers.at(-1)!['output_ids']);
    expectRows(prompt, last.tokens, last.rows);
    expectLogprobs(prompt, last.tokens, last.logprobs);
  });

  test('AReaL: its limits of sampling; ROLL: output_ids; lists of prompts and n give lists', async () => {
    const prompt = promptOf(4, 7);
    const sampling_params = { ...params, top_k: 100_000_000, frequency_penalty: 0, stop_token_ids: [96] };
    const answer = await ask('/generate', { input_ids: prompt, image_data: [], sampling_params, stream: false });
    expectRows(prompt, answer['output_ids'] as number[], arealRows(answer));
    const several = (await ask('/generate', {
      input_ids: [prompt, promptOf(5, 3)],
      sampling_params: { ...sampling_params, n: 2 },
    })) as unknown as readonly Json[];
    expect(several.map(({ output_ids: ids }) => (ids as number[]).length)).toHaveLength(4);
    for (const [i, one] of several.entries()) {
      expectRows(i < 2 ? prompt : promptOf(5, 3), one['output_ids'] as number[], arealRows(one));
    }
  });

  test('log-probabilities of the prompt are those that its tokens had as output', async () => {
    const prompt = promptOf(6, 6);
    const body = { sampling_params: params, return_logprob: true, top_logprobs_num: 3 };
    const first = (await ask('/generate', { input_ids: prompt, ...body }))['meta_info'] as Json;
    const output = first['output_token_logprobs'] as readonly (readonly [number, number, null])[];
    const all = [...prompt, ...output.map(([, id]) => id)];
    const again = await ask('/generate', { input_ids: all, ...body, logprob_start_len: 5 });
    const input = (again['meta_info'] as Json)['input_token_logprobs'] as readonly (readonly [number | null, number])[];
    expect(input[0]).toEqual([null, prompt[5], null]);
    expect(input.slice(1)).toEqual(output);
    const top = first['output_top_logprobs'] as readonly (readonly (readonly [number, number])[])[];
    for (const [i, likeliest] of top.entries()) {
      expect(likeliest[0]).toEqual(output[i]);
      expect(likeliest.length).toBe(3);
      for (const [logprob] of likeliest) expect(logprob <= 0 && Number.isFinite(logprob)).toBe(true);
      expect(likeliest[0]![0] > likeliest[1]![0] && likeliest[1]![0] > likeliest[2]![0]).toBe(true);
    }
  });
});

test('rows of all layers, dense ones as zeros, as SGLang’s readers count them', async () => {
  const model = modelPreset('tiny-dense');
  const numLayers = 6;
  const dense = await startServer({ isEveryRowReturned: true, host: { model, rowsLayers: 'all' } });
  try {
    const body = {
      input_ids: [1, 2, 3],
      return_logprob: true,
      sampling_params: { max_new_tokens: 4, ignore_eos: true },
    };
    const response = await fetch(`${dense.url}/generate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const width = numLayers * model.topK;
    const { tokens, rows } = slimeSample((await response.json()) as Json, { numPrompt: 3, start: 0, width });
    const expected = oracle(model, [1, 2, 3, ...tokens]).rows;
    const routed = [2, 3, 5];
    for (let row = 0; row < rows.count; row++) {
      for (let layer = 0; layer < numLayers; layer++) {
        const ids = rows.ids.slice((row * numLayers + layer) * model.topK, (row * numLayers + layer + 1) * model.topK);
        const from = (row * routed.length + routed.indexOf(layer)) * model.topK;
        const wanted = routed.includes(layer) ? [...expected.subarray(from, from + model.topK)] : [0, 0];
        expect([row, layer, ids]).toEqual([row, layer, wanted]);
      }
    }
  } finally {
    await dense.close(0);
  }
});

describe('chat', () => {
  const messages = [{ role: 'user', content: 'Which experts?' }];

  test('miles’ session server: the prompt as ids, meta_info in the choice, a second turn with a start', async () => {
    const prompt = promptOf(10, 15);
    const body = {
      messages,
      tools: [{ type: 'function', function: { name: 'f' } }],
      logprobs: true,
      return_meta_info: true,
      return_routed_experts: true,
      no_stop_trim: false,
      max_tokens: 6,
      ignore_eos: true,
    };
    const answer = await ask('/v1/chat/completions', { ...body, input_ids: prompt, routed_experts_start_len: 0 });
    const first = milesTurn(choiceOf(answer));
    expectRows(prompt, first.tokens, { count: 20, ids: first.rows });
    const next = [...prompt, ...first.tokens, 1, 2, 3];
    const covered = prompt.length + first.tokens.length - 1;
    const second = milesTurn(
      choiceOf(
        await ask('/v1/chat/completions', {
          ...body,
          input_ids: next,
          routed_experts_start_len: covered,
          max_tokens: 2,
        }),
      ),
    );
    expect(second.start).toBe(covered);
    expectRows(next, second.tokens, { count: next.length + 1 - covered, ids: second.rows }, covered);
  });

  test('NeMo Gym: ids, log-probabilities and S rows in the message; the next turn begins with them', async () => {
    const body = {
      model: 'tiny',
      temperature: 1,
      top_p: 1,
      max_completion_tokens: 5,
      logprobs: true,
      top_logprobs: 0,
      return_tokens_as_token_ids: true,
      chat_template_kwargs: {},
      ignore_eos: true,
    };
    const answer = await ask('/v1/chat/completions', { ...body, messages });
    const message = choiceOf(answer)['message'] as Json;
    const first = nemoTurn(message);
    const numRows = first.prompt.length + first.tokens.length;
    expect(first.shape).toEqual([numRows, tiny.numLayers, tiny.topK]);
    expect(first.rows.ids.slice(-WIDTH)).toEqual([0, 1, 0, 1]);
    expectRows(first.prompt, first.tokens, { count: numRows - 1, ids: first.rows.ids.slice(0, -WIDTH) });
    expectLogprobs(first.prompt, first.tokens, first.logprobs);
    const turns = [...messages, message, { role: 'user', content: 'And now?' }];
    const second = nemoTurn(
      choiceOf(await ask('/v1/chat/completions', { ...body, messages: turns }))['message'] as Json,
    );
    expect(second.prompt.slice(0, numRows)).toEqual([...first.prompt, ...first.tokens]);
    const tokenized = await ask('/tokenize', { model: 'tiny', messages: turns });
    expect(tokenized['tokens']).toEqual(second.prompt);
  });

  test('NeMo Gym: a prompt longer than the context is a 400 that says so', async () => {
    const long = [{ role: 'user', content: 'x'.repeat(5000) }];
    const [status, text] = await send('/v1/chat/completions', { messages: long, logprobs: true });
    expect([status, text]).toEqual([400, expect.stringContaining('context length')]);
  });

  test('verifiers’ legacy client: ids at the top, rows as an object', async () => {
    const answer = await ask('/v1/chat/completions', {
      model: 'tiny',
      messages,
      logprobs: true,
      return_token_ids: true,
      max_completion_tokens: 4,
      ignore_eos: true,
    });
    const prompt = answer['prompt_token_ids'] as number[];
    const tokens = choiceOf(answer)['token_ids'] as number[];
    expectLogprobs(prompt, tokens, contentLogprobs(choiceOf(answer)));
    expectRows(prompt, tokens, verifiersRows(JSON.stringify(answer)));
  });
});

describe('tokens in, tokens out', () => {
  const sampling_params = { stop_token_ids: [96], logprobs: 1, skip_special_tokens: false, max_tokens: 7 };

  test('verifiers and prime-rl: two turns, the salt inside, the object cut out of the text', async () => {
    const prompt = promptOf(20, 9);
    const body = { model: 'tiny', sampling_params: { ...sampling_params, cache_salt: 'step-3' }, priority: 0 };
    const [, text] = await send('/inference/v1/generate', { ...body, token_ids: prompt }, SESSION);
    const answer = JSON.parse(text) as Json;
    expect(typeof answer['request_id']).toBe('string');
    const tokens = choiceOf(answer)['token_ids'] as number[];
    expectLogprobs(prompt, tokens, contentLogprobs(choiceOf(answer)));
    expectRows(prompt, tokens, verifiersRows(text));
    const next = [...prompt, ...tokens, 5, 6];
    const start = prompt.length + tokens.length - 1;
    const params = { ...body.sampling_params, routed_experts_prompt_start: start };
    const [, second] = await send('/inference/v1/generate', { token_ids: next, sampling_params: params }, SESSION);
    const rows = verifiersRows(second);
    expect(rows.start).toBe(start);
    expectRows(next, choiceOf(JSON.parse(second) as Json)['token_ids'] as number[], rows, start);
  });

  test('prime-rl: without max_tokens the answer fills the context', async () => {
    const { max_tokens: _, ...open } = sampling_params;
    const prompt = promptOf(21, 490);
    const params = { ...open, stop_token_ids: [], ignore_eos: true };
    const answer = await ask('/inference/v1/generate', { token_ids: prompt, sampling_params: params }, SESSION);
    expect(choiceOf(answer)['token_ids']).toHaveLength(512 - 490);
  });

  test('SkyRL: rows by its own path, in signed types; none by vLLM’s; two servers agree to the last bit', async () => {
    const prompt = promptOf(22, 11);
    const params = {
      min_tokens: 1,
      max_tokens: 6,
      temperature: 1,
      top_p: 1,
      top_k: -1,
      min_p: 0,
      logprobs: 1,
      stop: null,
    };
    const body = { model: 'tiny', token_ids: prompt, sampling_params: { ...params, include_stop_str_in_output: true } };
    const choice = choiceOf(await ask('/skyrl/v1/generate', body, SESSION));
    const tokens = choice['token_ids'] as number[];
    expectRows(prompt, tokens, skyrlRows(choice['routed_experts']));
    const other = await startServer({ dialect: 'skyrl', isEveryRowReturned: true });
    try {
      const response = await fetch(`${other.url}/inference/v1/generate`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ ...body, sampling_params: { ...params, n: 2, output_kind: 2, prompt_logprobs: 1 } }),
      });
      const answer = (await response.json()) as Json;
      expect(choiceOf(answer)).not.toHaveProperty('routed_experts');
      const ratios = contentLogprobs(choiceOf(answer)).map((logprob, i) => logprob - contentLogprobs(choice)[i]!);
      expect(ratios.every((difference) => Math.exp(difference) === 1)).toBe(true);
      expect(answer['prompt_logprobs']).toHaveLength(prompt.length);
    } finally {
      await other.close(0);
    }
  });

  test('a plain client of vLLM: the text of a .npy file, and the last event of a stream has it', async () => {
    const prompt = promptOf(23, 6);
    const body = { token_ids: prompt, sampling_params: { max_tokens: 5, ignore_eos: true } };
    const choice = choiceOf(await ask('/inference/v1/generate', body));
    expectOracle(prompt, choice['token_ids'] as number[], decodeNpy(choice['routed_experts'] as string));
    const [, text] = await send('/inference/v1/generate', { ...body, stream: true });
    const last = choiceOf(JSON.parse(eventsOf(text).at(-2)!) as Json);
    expectOracle(prompt, choice['token_ids'] as number[], decodeNpy(last['routed_experts'] as string));
  });

  test('AReaL on vLLM: completions with ids for tokens', async () => {
    const prompt = promptOf(24, 6);
    const answer = await ask('/v1/completions', {
      prompt,
      max_tokens: 5,
      logprobs: 0,
      return_tokens_as_token_ids: true,
      use_beam_search: false,
      ignore_eos: true,
    });
    const logprobs = choiceOf(answer)['logprobs'] as Readonly<{ tokens: string[]; token_logprobs: number[] }>;
    const tokens = logprobs.tokens.map((text) => Number(/^token_id:(\d+)$/.exec(text)![1]));
    expectLogprobs(prompt, tokens, logprobs.token_logprobs);
  });
});

test('missing rows that a form cannot say are an error that names the form, and no row', async () => {
  const poor = await startServer({ isEveryRowReturned: true, host: { prefixRows: 'computed-only' } });
  try {
    const sampling_params = { max_tokens: 3, ignore_eos: true, logprobs: 1 };
    const body = JSON.stringify({ token_ids: promptOf(30, 21), sampling_params });
    for (const [path, form] of [
      ['/skyrl/v1/generate', 'signed'],
      ['/inference/v1/generate', 'object'],
    ] as const) {
      const headers = { 'content-type': 'application/json', ...SESSION };
      const askPoor = async (): Promise<Json> =>
        (await (await fetch(poor.url + path, { method: 'POST', headers, body })).json()) as Json;
      if (form === 'signed') await askPoor();
      const error = (await askPoor())['error'] as Json;
      expect([error['code'], error['message']]).toEqual(['rows_missing', expect.stringContaining(`"${form}"`)]);
    }
  } finally {
    await poor.close(0);
  }
});

describe('fields of one dialect in a request of another', () => {
  test.each([
    ['/v1/completions', { prompt: 'x', return_routed_experts: true }, 'vllm_xargs.return_routed_experts'],
    ['/v1/completions', { prompt: 'x', max_new_tokens: 3 }, 'max_tokens'],
    ['/generate', { text: 'x', vllm_xargs: { return_routed_experts: true } }, 'return_routed_experts'],
    ['/generate', { text: 'x', sampling_params: { max_tokens: 3 } }, 'max_new_tokens'],
    ['/generate', { text: 'x', input_ids: [1] }, 'not both'],
    ['/v1/chat/completions', { input_ids: [1] }, 'return_meta_info'],
    ['/v1/chat/completions', { input_ids: [1], return_meta_info: true, stream: true }, 'stream'],
    ['/inference/v1/generate', { token_ids: [1], cache_salt: 'a', sampling_params: { cache_salt: 'b' } }, 'cache_salt'],
  ])('%s %j: an error that says what to send', async (path, body, hint) => {
    const [status, text] = await send(path, body);
    expect([status, JSON.parse(text).error.message]).toEqual([400, expect.stringContaining(hint)]);
  });

  test('what is asked for against the server’s flag is what comes', async () => {
    const without = { prompt: 'x', vllm_xargs: { return_routed_experts: false } };
    expect(choiceOf(await ask('/v1/completions', without))).not.toHaveProperty('routed_experts');
    const answer = await ask('/generate', { text: 'x', return_routed_experts: false });
    expect(answer['meta_info']).not.toHaveProperty('routed_experts');
  });
});
