// Two servers and the proxy as processes, as in docs/serving.md: tokens and rows of every request are the single
// instance's, under all three ways, and also when a server is killed while requests are under way.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { pdRowsWays } from '../../src/serve/kv/transfer-params.ts';
import { chat } from '../../src/workload/chat.ts';
import { readTrace } from '../../src/workload/traces/read-trace.ts';
import type { Workload, WorkloadRequest } from '../../src/workload/workload.ts';
import type { WireChoice } from './helpers.ts';
import { decodeNpy, eventsOf, expectOracle, post, tiny, wire } from './helpers.ts';
import type { HasUrl } from './pd-helpers.ts';
import { decode, prefill, promptOf, startCommand, startKvServer, withRows } from './pd-helpers.ts';
import { expectNothingLeft } from './helpers.ts';

const CONCURRENCY = 16;
const trace = join(import.meta.dirname, '../../../shared/traces/mooncake-conversation-3000.jsonl');
const hasTrace = existsSync(trace);
if (!hasTrace) console.warn('SKIPPED: prefill and decode over the Mooncake trace; it is not in ../shared/traces');

/** Every other request is streamed. Answers the last choice, and all tokens. */
async function ask(
  proxy: HasUrl,
  { promptTokenIds, maxTokens }: WorkloadRequest,
  stream: boolean,
): Promise<WireChoice> {
  const body = { prompt: [...promptTokenIds], max_tokens: maxTokens, ...withRows, stream };
  if (!stream) {
    const answer = await post(proxy, '/v1/completions', body);
    expect(answer.status).toBe(200);
    return answer.body.choices[0]!;
  }
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(`${proxy.url}/v1/completions`, { method: 'POST', headers, body: JSON.stringify(body) });
  const events = eventsOf(await answer.text());
  expect([answer.status, events.at(-1)]).toEqual([200, '[DONE]']);
  const chunks = events.slice(0, -1).map((event) => wire(JSON.parse(event)).choices[0]!);
  return { ...chunks.at(-1)!, token_ids: chunks.flatMap(({ token_ids: ids }) => [...ids]) };
}

/** A closed loop over the whole workload; every answer is the oracle's, and lacks nothing. */
async function serveAll(
  proxy: HasUrl,
  { requests }: Workload,
  onAnswer: (numAnswers: number) => void = () => {},
): Promise<void> {
  let next = 0;
  let numAnswers = 0;
  const client = async (): Promise<void> => {
    for (let i = next++; i < requests.length; i = next++) {
      const request = requests[i]!;
      const choice = await ask(proxy, request, i % 2 === 1);
      onAnswer(++numAnswers);
      expect([request.requestId, choice.token_ids.length]).toEqual([request.requestId, request.maxTokens]);
      expect([request.requestId, choice.routed_experts_missing]).toEqual([request.requestId, []]);
      expectOracle(request.promptTokenIds, choice.token_ids, decodeNpy(choice.routed_experts));
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, client));
}

async function metric({ url }: HasUrl, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

test.each(pdRowsWays)('%s: 200 requests of the Mooncake trace; a chat, in which a server is killed', async (rows) => {
  const prefillFlags = ['--role', 'prefill', '--pd-rows', rows];
  const [p1, p2, d] = await Promise.all([
    startCommand('serve', ...prefillFlags),
    startCommand('serve', ...prefillFlags),
    startCommand('serve', '--role', 'decode', '--pd-rows', rows),
  ]);
  const proxy = await startCommand('proxy', '--prefill', p1.url, p2.url, '--decode', d.url, '--pd-rows', rows);
  const options = { seed: 5, vocabSize: tiny.vocabSize };
  await serveAll(proxy, chat({ ...options, requests: 20 }));
  if (hasTrace) await serveAll(proxy, readTrace(trace, { ...options, requests: 200, scaleLengths: 32 }));
  // Prompts were prefilled there and not here, and no hand-over went wrong.
  expect(await metric(d, 'vllm:external_prefix_cache_hits_total')).toBeGreaterThan(hasTrace ? 10_000 : 300);
  expect(await metric(d, 'routed_experts:kv_failed_loads_total')).toBe(0);
  expect((await metric(d, 'routed_experts:rows_missing_total')) > 0).toBe(rows === 'splice');
  expect((await metric(proxy, 'routed_experts_proxy:rows_spliced_total')) > 0).toBe(rows === 'splice');
  expect(await metric(proxy, 'routed_experts_proxy:rows_missing_total')).toBe(0);
  for (const p of [p1, p2]) {
    expect(await metric(p, 'routed_experts:kv_sent_bytes_total')).toBeGreaterThan(0);
    await expect.poll(() => metric(p, 'routed_experts:kv_kept_blocks'), { interval: 20 }).toBe(0);
  }

  await serveAll(proxy, chat({ ...options, seed: 6, requests: 60 }), (numAnswers) => {
    if (numAnswers === 15) p1.child.kill('SIGKILL');
  });
  expect(await p1.exit).toEqual([null, 'SIGKILL']);
  for (const { child, exit } of [proxy, d, p2]) {
    child.kill('SIGTERM');
    expect(await exit).toEqual([0, null]);
  }
});

test.each(pdRowsWays)(
  '%s: a server that dies in the middle of a hand-over: computed here instead, at once',
  async (rows) => {
    const p = await startCommand('serve', '--role', 'prefill', '--pd-rows', rows);
    const d = await startKvServer({ role: 'decode', rows, loadMs: 600_000 });
    const prompt = promptOf(1, 500);
    const params = await prefill(p, prompt);
    p.child.kill('SIGSTOP');
    const answer = decode(d, prompt, params);
    await expect.poll(() => d.host.engine.stats().numWaitingForRemoteKvs, { interval: 2 }).toBe(1);
    p.child.kill('SIGKILL');
    const choice = (await answer).body.choices[0]!;
    expect(choice.routed_experts_missing).toEqual([]);
    expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts));
    expect(d.host.kv!.counts).toMatchObject({ loads: 1, failedLoads: 1 });
    await expectNothingLeft(d);
  },
);
