// Three ways for the rows of a prompt that another server prefilled. Each engine folds an epoch of its own into its
// keys, so that rows tell whose they are: they are those of the KV that the request attended to (L9), and what nobody
// has is declared missing (L4).

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Server } from '../../src/serve/server.ts';
import { pdRowsWays } from '../../src/serve/kv/transfer-params.ts';
import type { Answer } from './helpers.ts';
import { decodeNpy, expectNothingLeft, expectOracle, post, smallKv, startServer, tiny } from './helpers.ts';
import type { Epochs, Params } from './pd-helpers.ts';
import { decode, expectEpochs, keep, prefill, promptOf, startKvServer, withRows } from './pd-helpers.ts';

const OWN = 7;
const WIDTH = tiny.numLayers * tiny.topK;

type Ranges = readonly (readonly [number, number])[];

function expectAnswer(
  { status, body }: Answer,
  prompt: readonly number[],
  epochs: Epochs,
  missing: Ranges,
  choice: number = 0,
): void {
  expect(status).toBe(200);
  const { routed_experts: text, routed_experts_missing: declared, token_ids: output } = body.choices[choice]!;
  expect(declared).toEqual(missing);
  const rows = decodeNpy(text);
  expectEpochs(prompt, output, rows, OWN, epochs, missing);
  for (const [from, to] of missing) {
    expect(new Set(rows.ids.slice(from * WIDTH, to * WIDTH))).toEqual(new Set([255]));
  }
}

describe.each(pdRowsWays)('%s', (rows) => {
  let p1: Server;
  let p2: Server;
  let d: Server;

  beforeAll(async () => {
    const prefillKv = { ...smallKv, role: 'prefill', rows } as const;
    const decodeKv = { ...smallKv, role: 'decode', rows } as const;
    [p1, p2, d] = await Promise.all([
      startServer({ host: { kv: prefillKv, epoch: 1 } }),
      startServer({ host: { kv: prefillKv, epoch: 2 } }),
      startServer({ host: { kv: decodeKv, epoch: OWN } }),
    ]);
  });

  afterAll(async () => {
    for (const server of [p1, p2, d]) {
      await expectNothingLeft(server);
      await server.close(0);
    }
  });

  /** What is declared missing where the KV of `[from, to)` was loaded. */
  const missingOf = (from: number, to: number): Ranges => (rows === 'splice' ? [[from, to]] : []);

  test('behind a prefix that is cached here, extended, repeated: each row is that of its KV', async () => {
    const prompt = promptOf(1, 48);
    expectAnswer(
      await post(d, '/v1/completions', { prompt: prompt.slice(0, 35), max_tokens: 2, ...withRows }),
      prompt.slice(0, 35),
      [[OWN, 0]],
      [],
    );
    const first: Epochs = [
      [OWN, 32],
      [1, 15],
      [OWN, 1],
    ];
    expectAnswer(await decode(d, prompt, await prefill(p1, prompt)), prompt, first, missingOf(32, 47));
    // Loaded from the other one: what is cached of the first one's stays, unless it has no rows.
    const again: Epochs =
      rows === 'splice'
        ? [
            [OWN, 32],
            [2, 15],
            [OWN, 1],
          ]
        : [
            [OWN, 32],
            [1, 12],
            [2, 3],
            [OWN, 1],
          ];
    expectAnswer(await decode(d, prompt, await prefill(p2, prompt)), prompt, again, missingOf(32, 47));
    const longer = [...prompt, ...promptOf(2, 29)];
    const params = await prefill(p2, longer);
    const before = d.host.engine.stats().numExternalTokens;
    const answer = await decode(d, longer, params);
    const numLoaded = d.host.engine.stats().numExternalTokens - before;
    expect(numLoaded).toBe(rows === 'splice' ? 77 - 32 : 77 - 48);
    // Of two blocks with the same tokens the first one is found: the last of the prompt before, whose last key was
    // computed here.
    const extended: Epochs =
      rows === 'splice'
        ? [
            [OWN, 32],
            [2, 44],
            [OWN, 1],
          ]
        : [
            [OWN, 32],
            [1, 15],
            [OWN, 1],
            [2, 28],
            [OWN, 1],
          ];
    expectAnswer(answer, longer, extended, missingOf(32, 76));
  });

  test('of prompts of one token, of part of a block, of whole blocks; from a start on', async () => {
    for (const length of [1, 2, 3, 4, 5, 8, 9, 100]) {
      const prompt = promptOf(1000 + length, length);
      const answer = await decode(d, prompt, await prefill(p1, prompt));
      const isLoaded = length > 1;
      expectAnswer(
        answer,
        prompt,
        isLoaded
          ? [
              [1, length - 1],
              [OWN, 1],
            ]
          : [[OWN, 0]],
        isLoaded ? missingOf(0, length - 1) : [],
      );
    }
    const prompt = promptOf(50, 30);
    for (const start of [29, 7, 4]) {
      const fields = { routed_experts_prompt_start: start };
      const { body } = await decode(d, prompt, await prefill(p1, prompt, fields), fields);
      const choice = body.choices[0]!;
      expect(decodeNpy(choice.routed_experts).shape[0]).toBe(35 - start);
      expect(choice.routed_experts_missing).toEqual(rows === 'splice' && start < 29 ? [[start, 29]] : []);
    }
  });

  test('to several choices, which fetch the KV once', async () => {
    const prompt = promptOf(3, 61);
    const params = await prefill(p1, prompt, { n: 2 });
    const before = d.host.kv!.counts.bytesLoaded;
    const answer = await decode(d, prompt, params, { n: 4 });
    for (let choice = 0; choice < 4; choice++) {
      expectAnswer(
        answer,
        prompt,
        [
          [1, 60],
          [OWN, 1],
        ],
        missingOf(0, 60),
        choice,
      );
    }
    const numBytes = 64 * 8 + (rows === 'with-kv' ? 61 * WIDTH : 0);
    expect(d.host.kv!.counts.bytesLoaded - before).toBe(numBytes);
    expect(d.host.kv!.counts.failedLoads).toBe(0);
  });

  test('to several choices that have room one after the other: the KV is there for the last', async () => {
    const decoder = await startKvServer({ role: 'decode', rows }, { epoch: OWN }, { numBlocks: 24, maxModelLen: 80 });
    const prompt = promptOf(8, 61);
    const answer = await decode(decoder, prompt, await prefill(p1, prompt), { n: 4 });
    for (let choice = 0; choice < 4; choice++) {
      expectAnswer(
        answer,
        prompt,
        [
          [1, 60],
          [OWN, 1],
        ],
        missingOf(0, 60),
        choice,
      );
    }
    expect(decoder.host.kv!.counts.failedLoads).toBe(0);
    await expectNothingLeft(decoder);
  });

  test('rows stand in the first answer too, unless the proxy says that it wants none there', async () => {
    // oxlint-disable-next-line unicorn/consistent-function-scoping -- uses the suite's servers
    const ask = async (more: object): Promise<unknown> => {
      const prompt = promptOf(4, 9);
      const body = { prompt, max_tokens: 1, ...withRows, kv_transfer_params: { ...keep, ...more } };
      const answer = await post(p1, '/v1/completions', body);
      await decode(d, prompt, (answer.body as unknown as { kv_transfer_params: Params }).kv_transfer_params);
      return answer.body.choices[0]!.routed_experts;
    };
    expect(decodeNpy((await ask({})) as string).shape[0]).toBe(9);
    expect(await ask({ return_rows: false })).toBeUndefined();
  });

  test('of a request that loses its KV afterwards', async () => {
    const prefiller = await startKvServer({ role: 'prefill', rows });
    const decoder = await startKvServer({ role: 'decode', rows }, {}, fewBlocks);
    const prompts = Array.from({ length: 10 }, (_, i) => promptOf(100 + i, 40 + i));
    const params = await Promise.all(prompts.map((prompt) => prefill(prefiller, prompt)));
    const answers = await Promise.all(
      prompts.map(
        async (prompt, i) => [prompt, await decode(decoder, prompt, params[i]!, { max_tokens: 150 })] as const,
      ),
    );
    expect(decoder.host.engine.stats().numPreemptions).toBeGreaterThan(0);
    expect(decoder.host.engine.stats().numExternalTokens).toBeGreaterThan(0);
    for (const [prompt, { status, body }] of answers) {
      expect(status).toBe(200);
      const { routed_experts: text, routed_experts_missing: missing, token_ids: output } = body.choices[0]!;
      if (rows !== 'splice') expect(missing).toEqual([]);
      for (const [from, to] of missing) expect([from >= 0, to < prompt.length]).toEqual([true, true]);
      expectOracleBut(prompt, output, decodeNpy(text), missing);
    }
    await expectNothingLeft(decoder);
    await expectNothingLeft(prefiller);
  });

  test('of KV whose lease is over: computed here instead', async () => {
    const prefiller = await startKvServer({ role: 'prefill', rows, leaseMs: 20 }, { epoch: 1 });
    const decoder = await startKvServer({ role: 'decode', rows }, { epoch: OWN });
    const prompt = promptOf(5, 44);
    const params = await prefill(prefiller, prompt);
    await expectNothingLeft(prefiller);
    expectAnswer(await decode(decoder, prompt, params), prompt, [[OWN, 0]], []);
    expect(decoder.host.kv!.counts).toMatchObject({ loads: 1, failedLoads: 1 });
    await expectNothingLeft(decoder);
  });

  test('of KV that does not come, by the other policy: that request fails alone', async () => {
    const prefiller = await startKvServer({ role: 'prefill', rows, leaseMs: 20 });
    const decoder = await startKvServer({ role: 'decode', rows, onLoadFailure: 'fail' });
    const prompt = promptOf(6, 44);
    const params = await prefill(prefiller, prompt);
    await expectNothingLeft(prefiller);
    const [bad, good] = await Promise.all([
      decode(decoder, prompt, params),
      post(decoder, '/v1/completions', { prompt, max_tokens: 5, ...withRows }),
    ]);
    expect([bad.status, bad.body.error.code]).toEqual([500, 'kv_load_failed']);
    expectOracle(prompt, good.body.choices[0]!.token_ids, decodeNpy(good.body.choices[0]!.routed_experts));
    await expectNothingLeft(decoder);
  });
});

/** Ten requests drive each other out of these. */
const fewBlocks = { numBlocks: 120, maxNumBatchedTokens: 64, maxModelLen: 256, reserveFullIsl: false };

/** As `expectOracle`, without the rows that are missing. */
function expectOracleBut(
  prompt: readonly number[],
  output: readonly number[],
  { shape, ids }: ReturnType<typeof decodeNpy>,
  missing: Ranges,
): void {
  expectEpochs(prompt, output, { shape, ids }, 0, [[0, 0]], missing);
}

const forged = (params: Params, change: (rows: Record<string, unknown>) => object): Params => ({
  ...params,
  remote_routed_experts: change(params['remote_routed_experts'] as Record<string, unknown>),
});

describe('carried rows', () => {
  test('that are not those of the engine that has the KV are not used', async () => {
    const [p, d] = [await startKvServer({ rows: 'carry' }), await startKvServer({ rows: 'carry' })];
    const [prompt, other] = [promptOf(10, 33), promptOf(11, 33)];
    const params = await prefill(p, prompt);
    const others = (await prefill(p, other))['remote_routed_experts'];
    const answer = await decode(
      d,
      prompt,
      forged(params, () => others as object),
    );
    expectEpochs(prompt, answer.body.choices[0]!.token_ids, decodeNpy(answer.body.choices[0]!.routed_experts), 0, [
      [0, 0],
    ]);
    expect(d.host.kv!.counts).toMatchObject({ loads: 1, failedLoads: 1, tokensLoaded: 0 });
    await expectNothingLeft(d);
  });

  test('that are wrong get a 400 that names the field', async () => {
    const [p, d] = [await startKvServer({ rows: 'carry' }), await startKvServer({ rows: 'carry' })];
    const prompt = promptOf(12, 21);
    const params = await prefill(p, prompt);
    const name = 'kv_transfer_params.remote_routed_experts';
    const wrongs: readonly (readonly [string, (rows: Record<string, unknown>) => unknown, string])[] = [
      ['a list', () => [], ''],
      ['a string', () => 'x', ''],
      ['nothing', () => ({}), '.shape'],
      ['a row too many', (rows) => ({ ...rows, shape: [22, tiny.numLayers, tiny.topK] }), '.shape'],
      ['another model’s', (rows) => ({ ...rows, shape: [21, 1, 2] }), '.shape'],
      ['two dimensions', (rows) => ({ ...rows, shape: [21, WIDTH] }), '.shape'],
      ['another dtype', (rows) => ({ ...rows, dtype: 'uint16' }), '.dtype'],
      ['no data', (rows) => ({ ...rows, data: null }), '.data'],
      ['data that are no base64', (rows) => ({ ...rows, data: '!'.repeat(200) }), '.data'],
      ['data cut short', (rows) => ({ ...rows, data: (rows['data'] as string).slice(4) }), '.data'],
      ['another checksum', (rows) => ({ ...rows, crc32: 5 }), '.crc32'],
      ['no checksum', (rows) => ({ ...rows, crc32: null }), '.crc32'],
      ['a negative start', (rows) => ({ ...rows, start: -1 }), '.start'],
      ['a start behind the end', (rows) => ({ ...rows, start: 22 }), '.start'],
    ];
    for (const [what, change, field] of wrongs) {
      const { status, body } = await decode(d, prompt, forged(params, change as () => object));
      expect([what, status, body.error?.param]).toEqual([what, 400, name + field]);
    }
    const late = await prefill(p, prompt, { routed_experts_prompt_start: 5 });
    const { status, body } = await decode(d, prompt, late);
    expect([status, body.error.param]).toEqual([400, `${name}.start`]);
    expect((await decode(d, prompt, params)).status).toBe(200);
    await expectNothingLeft(d);
  });
});

describe('a role', () => {
  test.each([
    ['prefill', (params: Params) => params, 'do_remote_prefill'],
    ['decode', () => keep, 'do_remote_decode'],
  ] as const)('%s: the other’s part is refused, plain requests are served', async (role, paramsOf, field) => {
    const [p, server] = [await startKvServer(), await startKvServer({ role })];
    const prompt = promptOf(20, 10);
    const params = paramsOf(await prefill(p, prompt));
    const { status, body } = await decode(server, prompt, params);
    expect([status, body.error.param]).toEqual([400, `kv_transfer_params.${field}`]);
    expect(body.error.message).toContain(`--role ${role}`);
    const plain = await post(server, '/v1/completions', { prompt, max_tokens: 3, ...withRows });
    expectOracle(prompt, plain.body.choices[0]!.token_ids, decodeNpy(plain.body.choices[0]!.routed_experts));
  });
});

function oneOfEach(epoch: number): Promise<Server[]> {
  return Promise.all(pdRowsWays.map((rows) => startKvServer({ rows }, { epoch })));
}

test('servers that were told different ways: none of their rows is wrong', async () => {
  const [prefillers, decoders] = [await oneOfEach(1), await oneOfEach(OWN)];
  for (const [i, p] of prefillers.entries()) {
    for (const [j, d] of decoders.entries()) {
      const prompt = promptOf(30 + i, 25);
      const answer = await decode(d, prompt, await prefill(p, prompt));
      const [from, to] = [pdRowsWays[i], pdRowsWays[j]];
      // Where no rows come, and none are expected, KV without rows is not taken.
      const isLoaded = from !== 'splice' || to === 'splice';
      const epochs: Epochs = isLoaded
        ? [
            [1, 24],
            [OWN, 1],
          ]
        : [[OWN, 0]];
      expectAnswer(answer, prompt, epochs, to === 'splice' ? [[0, 24]] : []);
    }
  }
});
