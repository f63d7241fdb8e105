// Workers lost while KV comes in: the load is void, whatever the policy for loads that fail (L8). Keys that come after
// new workers have taken over are written nowhere: the blocks that they were for are others' (L9).

import { expect, onTestFinished, test } from 'vitest';
import { Router } from 'zeromq';
import { oracle } from '../../src/kernels/model/oracle.ts';
import { checksumOf } from '../../src/serve/kv/kv-frames.ts';
import { closeAfterTest, decodeNpy, expectNothingLeft, expectOracle, smallKv, startServer, tiny } from './helpers.ts';
import { decode, prefill, promptOf, startKvServer } from './pd-helpers.ts';

const CAP_MS = 60_000;
const prompt = promptOf(1, 30);
const kv = { ...smallKv, loadMs: CAP_MS, onLoadFailure: 'fail' } as const;

test.each([
  ['exit-thread', 0],
  ['exit-thread', 1],
  ['lose-device', 0],
  ['lose-device', 1],
  ['throw', 1],
] as const)('%s of rank %d as KV is written: under policy fail, too, its client gets all', async (kind, rank) => {
  const p = await startKvServer();
  const d = closeAfterTest(await startServer({ host: { kv, numRanks: 2, maxRestarts: 1 } }));
  const params = await prefill(p, prompt);
  await d.host.engine.injectFault({ kind, rank, afterKvMoves: 0 });
  const { status, body } = await decode(d, prompt, params);
  expect(status).toBe(200);
  expectOracle(prompt, body.choices[0]!.token_ids, decodeNpy(body.choices[0]!.routed_experts));
  await expect.poll(() => d.host.engine.workers.numRestarts, { interval: 2, timeout: CAP_MS }).toBe(1);
  await expectNothingLeft(d);
});

test('the last loss, as KV is written: its client is told, and nothing waits', async () => {
  const p = await startKvServer();
  const d = await startServer({ host: { kv } });
  const params = await prefill(p, prompt);
  await d.host.engine.injectFault({ kind: 'exit-thread', afterKvMoves: 0 });
  const { status, body } = await decode(d, prompt, params);
  expect([status, body.error.code]).toEqual([503, 'engine_dead']);
  await d.close(0);
  expect(d.host.numRequests).toBe(0);
});

test('KV that comes after new workers have taken over is written nowhere', async () => {
  const numTokens = 120;
  const long = promptOf(2, numTokens);
  // So few blocks that the request's last tokens come into those that the load was for.
  const host = { kv, maxRestarts: 1 };
  const d = closeAfterTest(await startServer({ host, engine: { numBlocks: 107, maxModelLen: 424 } }));
  const router = new Router({ linger: 0 });
  await router.bind('tcp://127.0.0.1:*');
  onTestFinished(() => router.close());
  const params = {
    do_remote_prefill: true,
    remote_engine_id: 'late',
    remote_request_id: 'r',
    remote_host: '127.0.0.1',
    remote_port: Number(/:(\d+)$/.exec(router.lastEndpoint!)![1]),
    remote_num_tokens: numTokens,
  };
  const answer = decode(d, long, params, { max_tokens: 300, vllm_xargs: {} });
  const [peer, question] = await router.receive();
  await d.host.engine.injectFault({ kind: 'lose-device', afterMs: 0 });
  await expect.poll(() => d.host.engine.workers.numRestarts, { interval: 2, timeout: CAP_MS }).toBe(1);
  // The request is computed here, and has come past the end of the pool.
  await expect
    .poll(() => d.host.engine.stats().numScheduledTokens, { interval: 1, timeout: CAP_MS })
    .toBeGreaterThan(310);
  const keys = Buffer.alloc(numTokens * 8, 0xab);
  const { id } = JSON.parse(question!.toString()) as { id: number };
  const header = {
    protocol: 1,
    id,
    error: null,
    checksum: checksumOf(keys, Buffer.alloc(0)),
    rowsStart: 0,
    rowsEnd: 0,
  };
  await router.send([peer!, JSON.stringify(header), keys, Buffer.alloc(0)]);
  const { status, body } = await answer;
  expect(status).toBe(200);
  const output = body.choices[0]!.token_ids;
  expect(output.length).toBe(300);
  const { nextTokens } = oracle(tiny, [...long, ...output]);
  expect(output).toEqual(output.map((_, i) => nextTokens[numTokens - 1 + i]));
  await expectNothingLeft(d);
});
