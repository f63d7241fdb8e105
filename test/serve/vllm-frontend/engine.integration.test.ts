// A frontend written from vLLM's side of the protocol against the real engine: tokens and rows are the oracle's.

import { expect, test } from 'vitest';
import { attached, expectEngineEmpty, expectOracle, promptOf } from './helpers.ts';

test('requests come back with the tokens and rows of the oracle, inline and in frames of their own', async () => {
  const { frontend, ...running } = await attached();
  expect(await frontend.call('get_supported_tasks')).toEqual(['generate']);
  expect(await frontend.call('reset_mm_cache')).toBeNull();
  const prompts = [promptOf(5), promptOf(63, 2), promptOf(64, 3), promptOf(300, 4)];
  const all = await Promise.all(
    prompts.map((prompt, i) => frontend.generate({ id: `r${i}`, prompt, sampling: { max_tokens: 6 + i } })),
  );
  for (const [i, received] of all.entries()) {
    expectOracle(received, prompts[i]!);
    expect(received.tokens.length).toBe(6 + i);
    expect(received.finishReasons).toEqual([1]);
    // The prompt's rows with the first token, then one row with each token.
    expect(received.rows.map(({ shape }) => shape[0])).toEqual([
      prompts[i]!.length,
      ...received.tokens.slice(1).map(() => 1),
    ]);
    expect(received.rows[0]!.isFrame).toBe(prompts[i]!.length >= 64);
    expect(received.prefill).toMatchObject({ num_prompt_tokens: prompts[i]!.length, num_cached_tokens: 0 });
  }
  await expectEngineEmpty(running);
});
