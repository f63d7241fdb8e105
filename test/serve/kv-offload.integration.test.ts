/** A server whose pool is small keeps KV in host memory and files; started again, it finds the files. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import type { Server } from '../../src/serve/server.ts';
import { closeAfterTest, decodeNpy, expectNothingLeft, expectOracle, post, startServer } from './helpers.ts';

const PROMPTS = [3, 5, 7].map((step) => Array.from({ length: 41 }, (_, i) => 1 + ((i * step) % 90)));
const optedIn = { vllm_xargs: { return_routed_experts: true }, return_token_ids: true };

async function cachedTokens(server: Server, prompt: readonly number[]): Promise<number> {
  const { body } = await post(server, '/v1/completions', { prompt, max_tokens: 4, ignore_eos: true, ...optedIn });
  expectOracle([...prompt], body.choices[0]!.token_ids, decodeNpy(body.choices[0]!.routed_experts));
  expect(body.choices[0]!.routed_experts_missing ?? []).toEqual([]);
  return body.usage!.prompt_tokens_details.cached_tokens;
}

test('a server that is started again returns rows of the KV that the one before it left in files', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'kv-offload-'));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  const kvOffload = { hostBlocks: 100, dir, dirBlocks: 100, weightVersion: '' };
  const start = (): ReturnType<typeof startServer> =>
    startServer({ host: { kvOffload }, engine: { numBlocks: 20, maxModelLen: 64 } });
  const before = await start();
  for (const prompt of PROMPTS) expect(await cachedTokens(before, prompt)).toBe(0);
  await before.close(1000);

  const server = closeAfterTest(await start());
  expect(await cachedTokens(server, PROMPTS[0]!)).toBe(40);
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  const valueOf = (name: string): number => Number(new RegExp(`^${name}\\{.*\\} (.*)$`, 'm').exec(metrics)?.[1]);
  expect(valueOf('vllm:external_prefix_cache_hits_total')).toBe(40);
  expect(valueOf('routed_experts:offload_file_reads_total')).toBe(10);
  expect(valueOf('routed_experts:offload_file_problems_total')).toBe(0);
  expect(valueOf('routed_experts:offload_from_host_bytes_total')).toBe(10 * 4 * (8 + 4));
  await expectNothingLeft(server);
});

test('workers that are lost as KV goes to host memory, and as it comes back, cost nobody a row', async () => {
  const kvOffload = { hostBlocks: 100, dir: null, dirBlocks: 1, weightVersion: '' };
  const host = { kvOffload, numRanks: 2, maxRestarts: 2 };
  const server = closeAfterTest(await startServer({ host, engine: { numBlocks: 20, maxModelLen: 64 } }));
  const { engine } = server.host;
  await engine.injectFault({ kind: 'exit-thread', rank: 0, afterKvMoves: 0 });
  for (const prompt of [...PROMPTS, ...PROMPTS]) await cachedTokens(server, prompt);
  expect(engine.workers.numRestarts).toBe(1);
  // Only rank 0 is read: what the other is asked first is to write.
  await engine.injectFault({ kind: 'lose-device', rank: 1, afterKvMoves: 0 });
  const { loads } = engine.offloadStats()!;
  for (const prompt of PROMPTS) await cachedTokens(server, prompt);
  expect(engine.workers.numRestarts).toBe(2);
  expect(engine.offloadStats()!.loads).toBeGreaterThan(loads);
  // What lies in host memory has outlived both.
  expect(await cachedTokens(server, PROMPTS[0]!)).toBe(40);
  await expectNothingLeft(server);
});
