// Prefill and decode behind our proxy: tokens and rows are the single instance's under all three ways, on every
// endpoint, in every form, streamed or not; and each row tells by its epoch that it is the one of the KV that was used
// (L9).

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pdRowsWays } from '../../src/serve/kv/transfer-params.ts';
import { Proxy } from '../../src/serve/proxy/proxy.ts';
import type { Server } from '../../src/serve/server.ts';
import type { RowFormat } from '../../src/rows/row-formats.ts';
import type { DecodedRows, WireChoice } from './helpers.ts';
import {
  decodeNpy,
  decodeNrlre1,
  decodeObject,
  decodeSglang,
  eventsOf,
  expectNothingLeft,
  post,
  promptIdsOf,
  smallKv,
  startServer,
  tiny,
  wire,
} from './helpers.ts';
import type { Epochs } from './pd-helpers.ts';
import { expectEpochs, promptOf, proxyConfig } from './pd-helpers.ts';

const P = 1;
const D = 2;

/** In the message of a chat. */
function nrlre1Of(choice: WireChoice): string {
  const { message, delta } = choice as Partial<WireChoice>;
  return (message ?? delta ?? choice).routed_experts;
}

function rowsOf(choice: WireChoice, format: RowFormat): DecodedRows {
  if (format === 'npy') return decodeNpy(choice.routed_experts);
  if (format === 'sglang') return decodeSglang(choice.meta_info, tiny.numLayers, tiny.topK);
  return format === 'object' ? decodeObject(choice.routed_experts) : decodeNrlre1(nrlre1Of(choice));
}

describe.each(pdRowsWays)('%s', (rows) => {
  let prefill: Server;
  let decode: Server;
  let proxy: Proxy;

  beforeAll(async () => {
    const kv = (role: 'prefill' | 'decode') => ({ ...smallKv, role, rows });
    prefill = await startServer({ host: { kv: kv('prefill'), epoch: P } });
    decode = await startServer({ host: { kv: kv('decode'), epoch: D } });
    proxy = await Proxy.start(proxyConfig([prefill], [decode], { rows }));
  });

  afterAll(async () => {
    expect(proxy.numActive).toBe(0);
    await expectNothingLeft(prefill);
    await expectNothingLeft(decode);
    await proxy.close(0);
    await prefill.close(0);
    await decode.close(0);
  });

  const formats: readonly RowFormat[] = ['npy', 'sglang', 'object', 'nrlre1'];

  test.each(formats)('%s: completions, chat and tokens, streamed and not', async (format) => {
    const xargs = { return_routed_experts: true, routed_experts_format: format };
    const seed = 100 * formats.indexOf(format) + 1000 * pdRowsWays.indexOf(rows);
    for (const [i, stream] of [false, true].entries()) {
      const prompt = promptOf(seed + i, 45 + i);
      const completion = { prompt, max_tokens: 7, ignore_eos: true, return_token_ids: true, vllm_xargs: xargs };
      const generation = {
        token_ids: promptOf(seed + 10 + i, 30),
        sampling_params: { max_tokens: 5, min_tokens: 3, ignore_eos: true, extra_args: xargs },
      };
      const chat = {
        messages: [{ role: 'user', content: `hello ${format} ${i}` }],
        max_completion_tokens: 6,
        min_tokens: 2,
        ignore_eos: true,
        return_token_ids: true,
        vllm_xargs: xargs,
      };
      for (const [path, body] of [
        ['/v1/completions', completion],
        ['/v1/chat/completions', chat],
        ['/inference/v1/generate', generation],
      ] as const) {
        const answer = await ask(path, { ...body, stream });
        const asked = 'token_ids' in body ? body.token_ids : answer.prompt;
        const epochs: Epochs = [
          [P, asked.length - 1],
          [D, 1],
        ];
        expect([path, answer.choice.routed_experts_missing]).toEqual([path, []]);
        expectEpochs(asked, answer.output, rowsOf(answer.choice, format), D, epochs);
      }
    }
  });

  type Asked = Readonly<{ choice: WireChoice; prompt: readonly number[]; output: readonly number[] }>;

  async function ask(path: string, body: Readonly<{ stream: boolean }>): Promise<Asked> {
    if (!body.stream) {
      const answer = await post(proxy, path, body);
      expect(answer.status).toBe(200);
      const choice = answer.body.choices[0]!;
      return { choice, prompt: promptIdsOf(answer.body), output: choice.token_ids };
    }
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(proxy.url + path, { method: 'POST', headers, body: JSON.stringify(body) });
    expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/);
    const events = eventsOf(await response.text());
    expect(events.at(-1)).toBe('[DONE]');
    const bodies = events.slice(0, -1).map((event) => wire(JSON.parse(event)));
    const chunks = bodies.map(({ choices }) => choices[0]!);
    const output = chunks.flatMap((chunk) => [...chunk.token_ids]);
    return { choice: chunks.at(-1)!, prompt: promptIdsOf(bodies[0]!), output };
  }

  test('from a start on; to several choices; of several prompts, which one server serves', async () => {
    const prompt = promptOf(7000, 41);
    const common = { max_tokens: 4, ignore_eos: true, return_token_ids: true };
    const vllm_xargs = { return_routed_experts: true, routed_experts_prompt_start: 13 };
    const { body } = await post(proxy, '/v1/completions', { prompt, n: 3, best_of: 3, ...common, vllm_xargs });
    const [full] = (
      await post(proxy, '/v1/completions', { prompt, ...common, vllm_xargs: { return_routed_experts: true } })
    ).body.choices;
    const width = tiny.numLayers * tiny.topK;
    const all = decodeNpy(full!.routed_experts).ids;
    expect(body.choices.length).toBe(3);
    for (const choice of body.choices) {
      expect(choice.routed_experts_missing).toEqual([]);
      expect(decodeNpy(choice.routed_experts)).toEqual({
        shape: [41 + 4 - 1 - 13, tiny.numLayers, tiny.topK],
        ids: all.slice(13 * width),
      });
    }
    const prompts = [promptOf(7001, 9), promptOf(7002, 12)];
    const several = await post(proxy, '/v1/completions', { prompt: prompts, ...common, vllm_xargs });
    expect([several.status, several.body.error?.param]).toEqual([400, 'routed_experts_prompt_start']);
    const both = await post(proxy, '/v1/completions', {
      prompt: prompts,
      ...common,
      vllm_xargs: { return_routed_experts: true },
    });
    for (const [i, choice] of both.body.choices.entries()) {
      expectEpochs(prompts[i]!, choice.token_ids, decodeNpy(choice.routed_experts), D, [[D, 0]]);
    }
  });

  test('behind a prefix that the server that decodes has, extended, repeated', async () => {
    const prompt = promptOf(8000, 48);
    const common = {
      max_tokens: 4,
      ignore_eos: true,
      return_token_ids: true,
      vllm_xargs: { return_routed_experts: true },
    };
    expect((await post(decode, '/v1/completions', { prompt: prompt.slice(0, 33), ...common })).status).toBe(200);
    const epochs: Epochs = [
      [D, 32],
      [P, 15],
      [D, 1],
    ];
    for (let time = 0; time < 2; time++) {
      const [choice] = (await post(proxy, '/v1/completions', { prompt, ...common })).body.choices;
      expect(choice!.routed_experts_missing).toEqual([]);
      expectEpochs(prompt, choice!.token_ids, decodeNpy(choice!.routed_experts), D, epochs);
    }
    const longer = [...prompt, ...promptOf(8001, 21)];
    const [choice] = (await post(proxy, '/v1/completions', { prompt: longer, ...common })).body.choices;
    expect(choice!.routed_experts_missing).toEqual([]);
    const extended: Epochs =
      rows === 'splice'
        ? [
            [D, 32],
            [P, 36],
            [D, 1],
          ]
        : [
            [D, 32],
            [P, 15],
            [D, 1],
            [P, 20],
            [D, 1],
          ];
    expectEpochs(longer, choice!.token_ids, decodeNpy(choice!.routed_experts), D, extended);
  });

  test('without rows where nobody asked', async () => {
    const before = decode.host.engine.stats().numExternalTokens;
    const { body } = await post(proxy, '/v1/completions', { prompt: promptOf(9000, 40), max_tokens: 3 });
    expect(body.choices[0]).not.toHaveProperty('routed_experts');
    expect(decode.host.engine.stats().numExternalTokens - before).toBe(40);
  });
});
