// vLLM's toy proxy works as it is. The stand-in does what it does to requests (../shared/facts/ecosystem.md, "P/D over
// HTTP") and knows nothing of rows.

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream } from 'node:stream/web';
import { text } from 'node:stream/consumers';
import { randomUUID } from 'node:crypto';
import { describe, expect, onTestFinished, test } from 'vitest';
import { pdRowsWays } from '../../src/serve/kv/transfer-params.ts';
import type { WireChoice } from './helpers.ts';
import { decodeNpy, eventsOf, expectNothingLeft, post, promptIdsOf, wire } from './helpers.ts';
import type { HasUrl } from './pd-helpers.ts';
import { expectEpochs, keep, promptOf, startKvServer, withRows } from './pd-helpers.ts';

type Json = Record<string, unknown>;

function send(url: string, body: Json, id: string): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    // It has no key, and says so.
    headers: { 'content-type': 'application/json', authorization: 'Bearer None', 'x-request-id': id },
    body: JSON.stringify(body),
  });
}

/** One server of each role. It answers 200 and `application/json` whatever comes, and passes on bytes. */
async function toyProxy(prefiller: HasUrl, decoder: HasUrl): Promise<HasUrl> {
  const server = createServer((request, response) => {
    void (async () => {
      const body = JSON.parse(await text(request)) as Json;
      const id = randomUUID();
      const { stream_options: _, min_tokens: __, ...rest } = body;
      const first = { ...rest, stream: false, max_tokens: 1, max_completion_tokens: 1, kv_transfer_params: keep };
      const prefilled = await send(prefiller.url + request.url!, first, id);
      if (!prefilled.ok) throw new Error(`${prefilled.status} ${await prefilled.text()}`);
      const params = ((await prefilled.json()) as Json)['kv_transfer_params'];
      const second = params ? { ...body, kv_transfer_params: params } : body;
      const decoded = await send(decoder.url + request.url!, second, id);
      response.writeHead(200, { 'content-type': 'application/json' });
      await pipeline(Readable.fromWeb(decoded.body as ReadableStream), response);
    })().catch((error: Error) => response.writeHead(500).end(JSON.stringify({ error: { message: error.message } })));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

describe.each(pdRowsWays)('%s', (rows) => {
  test('completions and chat, streamed and not, of one choice and of two', async () => {
    const p = await startKvServer({ role: 'prefill', rows }, { epoch: 1 });
    const d = await startKvServer({ role: 'decode', rows }, { epoch: 2 });
    const proxy = await toyProxy(p, d);
    const numLoaded = (): number => d.host.engine.stats().numExternalTokens;
    const expectChoice = (choice: WireChoice, prompt: readonly number[], output: readonly number[]): void => {
      const end = prompt.length - 1;
      // Nobody splices here: what the first server has is declared missing.
      const missing = rows === 'splice' ? ([[0, end]] as const) : [];
      expect(choice.routed_experts_missing).toEqual(missing);
      expectEpochs(
        prompt,
        output,
        decodeNpy(choice.routed_experts),
        2,
        [
          [1, end],
          [2, 1],
        ],
        missing,
      );
    };
    const common = { ...withRows, min_tokens: 3, max_tokens: 9 };

    const prompt = promptOf(1, 40);
    const { body } = await post(proxy, '/v1/completions', { ...common, prompt, n: 2 });
    expect(body.choices.length).toBe(2);
    for (const choice of body.choices) expectChoice(choice, prompt, choice.token_ids);

    const chat = { ...common, messages: [{ role: 'user', content: 'which experts?' }] };
    const answer = await post(proxy, '/v1/chat/completions', chat);
    const [message] = answer.body.choices;
    expectChoice(message!, promptIdsOf(answer.body), message!.token_ids);

    const streamed = promptOf(2, 33);
    const asked = { ...common, prompt: streamed, stream: true, stream_options: { include_usage: true } };
    const response = await fetch(`${proxy.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(asked),
    });
    const events = eventsOf(await response.text());
    expect(events.at(-1)).toBe('[DONE]');
    const chunks = events.slice(0, -1).map((event) => wire(JSON.parse(event)));
    expect(chunks.at(-1)!.usage).toMatchObject({ prompt_tokens: 33, completion_tokens: 9 });
    const choices = chunks.slice(0, -1).map((chunk) => chunk.choices[0]!);
    expectChoice(
      choices.at(-1)!,
      streamed,
      choices.flatMap(({ token_ids: ids }) => [...ids]),
    );

    expect(numLoaded()).toBe(2 * 40 + promptIdsOf(answer.body).length + 33);
    expect(d.host.kv!.counts.failedLoads).toBe(0);
    await expectNothingLeft(d);
    await expectNothingLeft(p);
  });
});
