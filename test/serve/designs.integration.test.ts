/**
 * Every capture design behind the server: rows are the oracle's in each wire form, whole or streamed; what a design
 * gives up is declared missing, position by position, and nothing else is (L4). A server without rows refuses whoever
 * asks for them.
 */

import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { designByName, designNames, type MissingRows } from '../../src/capture/designs.ts';
import type { DesignName } from '../../src/contract/config.ts';
import { rowAt } from '../../src/capture/routed-rows.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { readRows } from '../../src/rows/read-rows.ts';
import { rowFormats } from '../../src/rows/row-formats.ts';
import { oracle } from '../../src/kernels/model/oracle.ts';
import type { Server } from '../../src/serve/server.ts';
import {
  closeAfterTest,
  decodeNpy,
  decodeNrlre1,
  decodeObject,
  decodeSglang,
  eventsOf,
  expectNothingLeft,
  post,
  smallKv,
  startServer,
  tiny,
  wire,
  type DecodedRows,
  type WireChoice,
} from './helpers.ts';

const completions = '/v1/completions';
const prompt = Array.from({ length: 26 }, (_, i) => 1 + ((i * 11) % 90));
const capturing = designNames.filter((name) => name !== 'off');

type Ranges = readonly (readonly [number, number])[];

function ask(format: string, more: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> {
  const vllm_xargs = { return_routed_experts: true, routed_experts_format: format };
  return { prompt, max_tokens: 6, ignore_eos: true, return_token_ids: true, vllm_xargs, ...more };
}

/** Rows outside of `missing` are the oracle's; those inside hold what is no expert. */
function expectRows(choice: WireChoice, rows: DecodedRows, missing: Ranges, start = 0): void {
  const tokens = [...prompt, ...choice.token_ids];
  const expected = oracle(tiny, tokens);
  expect(Array.from(expected.nextTokens).slice(prompt.length - 1, -1)).toEqual(choice.token_ids);
  expect(choice.routed_experts_missing).toEqual(missing);
  expect(rows.shape).toEqual([tokens.length - 1 - start, tiny.numLayers, tiny.topK]);
  const width = tiny.numLayers * tiny.topK;
  for (let position = start; position < tokens.length - 1; position++) {
    const row = rows.ids.slice((position - start) * width, (position - start + 1) * width);
    if (missing.some(([from, to]) => position >= from && position < to)) {
      expect(row.every((id) => id < 0 || id >= tiny.numExperts)).toBe(true);
    } else expect(row).toEqual(Array.from(expected.rows.subarray(position * width, (position + 1) * width)));
  }
}

const decoders: Readonly<Record<string, (choice: WireChoice) => DecodedRows>> = {
  npy: (choice) => decodeNpy(choice.routed_experts),
  sglang: (choice) => decodeSglang(choice.meta_info, tiny.numLayers, tiny.topK),
  object: (choice) => decodeObject(choice.routed_experts),
  nrlre1: (choice) => decodeNrlre1(choice.routed_experts),
};

async function streamed(server: Server, body: Readonly<Record<string, unknown>>): Promise<WireChoice> {
  const response = await fetch(server.url + completions, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true }),
  });
  const chunks = eventsOf(await response.text())
    .slice(0, -1)
    .map((event) => wire(JSON.parse(event)).choices[0]!);
  return { ...chunks.at(-1)!, token_ids: chunks.flatMap((chunk) => chunk.token_ids) };
}

function givesUp(design: DesignName, what: MissingRows): boolean {
  return designByName(design).gaps.some(({ missing }) => missing === what);
}

describe.each(capturing)('%s', (design) => {
  let server: Server;

  beforeAll(async () => {
    server = await startServer({ host: { design } });
  });

  afterAll(() => server.close(0));

  test('rows of every form, whole and streamed, of several choices, and behind a start', async () => {
    for (const [format, decode] of Object.entries(decoders)) {
      // A salt of its own: nothing is cached.
      const whole = await post(server, completions, ask(format, { cache_salt: format }));
      expect(whole.status).toBe(200);
      expectRows(whole.body.choices[0]!, decode(whole.body.choices[0]!), []);
      const choice = await streamed(server, ask(format, { cache_salt: `${format}, streamed` }));
      expectRows(choice, decode(choice), []);
    }
    const late = await post(server, completions, ask('npy', { cache_salt: 'late', routed_experts_prompt_start: 20 }));
    expectRows(late.body.choices[0]!, decodeNpy(late.body.choices[0]!.routed_experts), [], 20);
    await expectNothingLeft(server);
  });

  test('rows of a prefix that another request computed, and of a request that a stop token ends', async () => {
    const { body } = await post(server, completions, ask('npy'));
    const output = body.choices[0]!.token_ids;
    const again = await post(server, completions, ask('npy'));
    expect(again.body.usage!.prompt_tokens_details.cached_tokens).toBe(24);
    const hit: Ranges = givesUp(design, 'prefix-hit') ? [[0, 24]] : [];
    expectRows(again.body.choices[0]!, decodeNpy(again.body.choices[0]!.routed_experts), hit);

    const stopped = ask('npy', { stop_token_ids: [output[2]], cache_salt: 'stopped' });
    const { body: stoppedBody } = await post(server, completions, stopped);
    const choice = stoppedBody.choices[0]!;
    expect([choice.finish_reason, choice.token_ids.length]).toEqual(['stop', output.indexOf(output[2]!) + 1]);
    const lost: Ranges = givesUp(design, 'stopped') ? [[0, prompt.length + choice.token_ids.length - 1]] : [];
    expectRows(choice, decodeNpy(choice.routed_experts), lost);
  });

  test('rows of requests whose workers were lost', async () => {
    const fault = { kind: 'exit-thread', stepId: 4 } as const;
    const losing = closeAfterTest(await startServer({ host: { design, fault, maxRestarts: 1 } }));
    const answers = await Promise.all(
      ['a', 'b', 'c'].map((salt) => post(losing, completions, ask('npy', { cache_salt: salt, max_tokens: 20 }))),
    );
    for (const { status, body } of answers) {
      expect(status).toBe(200);
      expectRows(body.choices[0]!, decodeNpy(body.choices[0]!.routed_experts), []);
    }
    const metrics = await (await fetch(`${losing.url}/metrics`)).text();
    expect(metrics).toMatch(/^routed_experts:worker_restarts_total\{.*\} 1$/m);
  });

  test('rows of a request that the server aborts as it stops: those it has, the others declared missing', async () => {
    // The last test: the server does not start again.
    const numScheduled = (): number => server.host.engine.stats().numScheduledTokens;
    const before = numScheduled();
    const answer = post(server, completions, ask('npy', { max_tokens: 4000, cache_salt: 'aborted' }));
    await vi.waitFor(() => expect(numScheduled() - before).toBeGreaterThan(60), { interval: 1 });
    await server.close(0);
    const { status, body } = await answer;
    const choice = body.choices[0]!;
    expect([status, choice.finish_reason]).toEqual([200, 'abort']);
    const all: Ranges = [[0, prompt.length + choice.token_ids.length - 1]];
    // Emits as it goes: what was aborted in the middle has the rows of its tokens.
    const hasNone = givesUp(design, 'aborted') && design !== 'slot-store';
    expectRows(choice, decodeNpy(choice.routed_experts), hasNone ? all : []);
  });
});

describe('off', () => {
  test('serves tokens, and refuses whoever asks for rows', async () => {
    const server = closeAfterTest(await startServer({ host: { design: 'off' } }));
    const plain = await post(server, completions, { prompt, max_tokens: 3, return_token_ids: true });
    expect(plain.status).toBe(200);
    expect(plain.body.choices[0]).not.toHaveProperty('routed_experts');
    for (const [path, body] of [
      [completions, ask('npy')],
      ['/v1/chat/completions', { ...ask('object'), prompt: undefined, messages: [{ role: 'user', content: 'x' }] }],
      [
        '/inference/v1/generate',
        { token_ids: prompt, sampling_params: { max_tokens: 3, extra_args: { return_routed_experts: true } } },
      ],
    ] as const) {
      const { status, body: refused } = await post(server, path, body);
      expect([path, status]).toEqual([path, 400]);
      expect(refused.error).toMatchObject({ param: 'return_routed_experts', code: 'unsupported_value' });
      expect(refused.error.message).toContain('--design off');
    }
  });
});

test.each(capturing)('%s with KV for and from others starts only if it takes over rows with KV', async (design) => {
  const started = startServer({ host: { design, kv: smallKv } });
  if (design === 'deltas') closeAfterTest(await started);
  else await expect(started).rejects.toThrow(`--design is ${design}; give deltas or off with --role`);
});

test('rows of all layers, in every form: zeros where a layer is dense, and layers with a router named', async () => {
  const model = modelPreset('tiny-dense');
  const server = closeAfterTest(await startServer({ host: { model, rowsLayers: 'all' } }));
  const shapes = { rowShape: { numLayers: 6, topK: 2 } };
  for (const format of rowFormats) {
    const { body } = await post(server, completions, ask(format, { cache_salt: format }));
    const choice = body.choices[0]!;
    expect(choice).toMatchObject({ routed_experts_layers: [2, 3, 5] });
    const { rows } = readRows(format, choice, shapes);
    const { rows: expected } = oracle(model, [...prompt, ...choice.token_ids]);
    for (let position = 0; position < rows.count; position++) {
      const [a, b, c, d, e, f] = expected.subarray(position * 6, position * 6 + 6);
      expect([...rowAt(rows, position)!]).toEqual([0, 0, 0, 0, a, b, c, d, 0, 0, e, f]);
    }
  }
});
