/** Speculative decoding behind the server: answers as without it, and vLLM's counters in /metrics. */

import { expect, test } from 'vitest';
import type { Server } from '../../src/serve/server.ts';
import { closeAfterTest, decodeNpy, expectNothingLeft, expectOracle, post, startServer } from './helpers.ts';

const prompt = Array.from({ length: 21 }, (_, i) => 1 + ((i * 13) % 90));

/** `drafts`, `draft_tokens`, `accepted_tokens`; a name that is not there is `null`. */
async function counters(server: Server): Promise<readonly (number | null)[]> {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  return ['drafts', 'draft_tokens', 'accepted_tokens'].map((name) => {
    const line = new RegExp(`^vllm:spec_decode_num_${name}_total\\{.*\\} (\\d+)$`, 'm').exec(text);
    return line === null ? null : Number(line[1]);
  });
}

async function generate(server: Server): Promise<void> {
  const { status, body } = await post(server, '/v1/completions', {
    prompt,
    max_tokens: 41,
    ignore_eos: true,
    n: 3,
    return_token_ids: true,
    vllm_xargs: { return_routed_experts: true },
  });
  expect(status).toBe(200);
  expect(body.usage).toMatchObject({ completion_tokens: 3 * 41 });
  for (const choice of body.choices) expectOracle(prompt, choice.token_ids, decodeNpy(choice.routed_experts));
  await expectNothingLeft(server);
}

test.each([1, 2])('queue depth %i: tokens and rows are the oracle’s; drafts are counted', async (queueDepth) => {
  const engine = { numSpeculativeTokens: 4, asyncScheduling: queueDepth > 1 };
  const server = closeAfterTest(await startServer({ engine, host: { queueDepth } }));
  await generate(server);
  const [drafts, draftTokens, accepted] = await counters(server);
  expect(drafts).toBeGreaterThan(20);
  expect(draftTokens).toBeGreaterThan(3 * drafts!);
  expect(draftTokens).toBeLessThanOrEqual(4 * drafts!);
  expect(accepted).toBeGreaterThan(30);
  expect(accepted).toBeLessThan(draftTokens!);
});

test('drafts that are always right: a prompt, then five tokens a step', async () => {
  const server = closeAfterTest(
    await startServer({ engine: { numSpeculativeTokens: 4 }, host: { draftAcceptanceRate: 1 } }),
  );
  await generate(server);
  // 1 + 8 · 5 tokens.
  expect(await counters(server)).toEqual([3 * 8, 3 * 32, 3 * 32]);
});

test('without drafts there are no counters of drafts', async () => {
  const server = closeAfterTest(await startServer());
  await generate(server);
  expect(await counters(server)).toEqual([null, null, null]);
});
