// A frontend written from vLLM's side of the protocol against the real engine: tokens and rows are the oracle's.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { SequenceLogprobs, type NextLogprobs } from '../../../src/kernels/model/logprobs.ts';
import { modelPreset } from '../../../src/kernels/model/model-presets.ts';
import { tiny } from '../helpers.ts';
import { addArray, pack } from './mirror-messages.ts';
import { attached, expectEngineEmpty, expectOracle, openAttached, promptOf, type Attached } from './helpers.ts';

/** Of the tests that need no engine of their own. */
let shared: Attached;

beforeAll(async () => {
  shared = await openAttached();
});

afterAll(() => shared.close());

const greedy = { temperature: 0, ignore_eos: true };

test('requests come back with the tokens and rows of the oracle, inline and in frames of their own', async () => {
  const { frontend } = shared;
  expect(frontend.readyResponses).toEqual([
    expect.objectContaining({ max_model_len: 512, num_gpu_blocks: 513, block_size: 4, data_parallel_rank: 0 }),
  ]);
  expect(await frontend.call('get_supported_tasks')).toEqual(['generate']);
  expect(await frontend.call('reset_mm_cache')).toBeNull();
  const prompts = [promptOf(5), promptOf(63, 2), promptOf(64, 3), promptOf(300, 4)];
  const all = await Promise.all(
    prompts.map((prompt, i) => frontend.generate({ id: `r${i}`, prompt, sampling: { ...greedy, max_tokens: 6 + i } })),
  );
  for (const [i, received] of all.entries()) {
    const prompt = prompts[i]!;
    expectOracle(received, prompt);
    expect(received.tokens.length).toBe(6 + i);
    expect(received.finishReasons).toEqual([1]);
    // The prompt's rows with the first token, then one row with each token.
    expect(received.rows.map(({ shape }) => shape[0])).toEqual([
      prompt.length,
      ...received.tokens.slice(1).map(() => 1),
    ]);
    expect(received.rows[0]!.isFrame).toBe(prompt.length * tiny.numLayers * tiny.topK >= 256);
    expect(received.prefill).toMatchObject({ num_prompt_tokens: prompt.length, num_cached_tokens: 0 });
    const [queued, scheduled] = received.events!.map(({ timestamp }) => timestamp as number);
    expect(received.events!.map(({ type }) => type)).toEqual([1, 2]);
    expect(scheduled).toBeGreaterThanOrEqual(queued!);
  }
  const queries = frontend.stats.map(({ prefix_cache_stats: stats }) => stats as Record<string, number>);
  expect(queries.reduce((sum, { requests }) => sum + requests!, 0)).toBe(4);
  expect(queries.reduce((sum, each) => sum + each['queries']!, 0)).toBe(5 + 63 + 64 + 300);
  await frontend.until(() => frontend.stats.at(-1)!['num_running_reqs'] === 0);
  await expectEngineEmpty(shared);
});

test('children of n, salts, prefix hits and minimal tokens are the engine’s', async () => {
  const { frontend } = shared;
  const prompt = promptOf(41, 9);
  const ask = (id: string, sampling = {}, at = {}): ReturnType<typeof frontend.generate> =>
    frontend.generate({ id, prompt, sampling: { ...greedy, max_tokens: 3, ...sampling }, at });
  const first = await ask('0_parent');
  expect(first.prefill).toMatchObject({ num_cached_tokens: 0 });
  const children = await Promise.all([ask('1_parent', { seed: 12 }), ask('2_parent', { seed: 2n ** 63n })]);
  for (const child of children) {
    expectOracle(child, prompt);
    expect(child.prefill).toMatchObject({ num_cached_tokens: 40, num_computed_tokens: 1 });
  }
  const salted = await ask('salted', {}, { 7: 'pepper' });
  expect(salted.prefill).toMatchObject({ num_cached_tokens: 0 });
  const unread = await ask('unread', { skip_reading_prefix_cache: true });
  expect(unread.prefill).toMatchObject({ num_cached_tokens: 0 });
  expectOracle(salted, prompt);

  const [one, two] = first.tokens as [number, number];
  const stopped = await ask('stopped', { stop_token_ids: [two, 90_000], _all_stop_token_ids: [two] });
  expect(stopped).toMatchObject({ finishReasons: [0], stopReason: two, tokens: [one, two] });
  const eos = await ask('eos', { ignore_eos: false, _eos_token_id: two });
  expect(eos).toMatchObject({ finishReasons: [0], stopReason: null, tokens: [one, two] });
  const held = await ask('held', { stop_token_ids: [two], min_tokens: 3 });
  expect(held.tokens.slice(0, 2)).toEqual([one, two]);
  expect(held.tokens.length).toBeGreaterThan(2);
  const defaults = await frontend.generate({ id: 'defaults', prompt, sampling: { ignore_eos: true } });
  expect(defaults.tokens.length).toBe(16);
  const unlimited = await frontend.generate({ id: 'rest', prompt, sampling: { ...greedy, max_tokens: null } });
  expect(unlimited.tokens.length).toBe(512 - 41);
  expectOracle(unlimited, prompt);
});

test('rows of more than 256 experts are 16 bits wide, for those that ask; tokens have log probabilities', async () => {
  const model = { ...modelPreset('tiny'), numExperts: 300, topK: 3 };
  const { frontend } = await attached({ host: { model }, rowsFor: 'asked' });
  const prompt = promptOf(30);
  const plain = await frontend.generate({ id: 'plain', prompt, sampling: { ...greedy, max_tokens: 2 } });
  expect(plain.rows).toEqual([]);
  const asked = { routed_experts_prompt_start: 11, extra_args: { return_routed_experts: true } };
  const sampling = { ...greedy, max_tokens: 3, logprobs: 2, prompt_logprobs: 0, ...asked };
  const received = await frontend.generate({ id: 'wide', prompt, sampling });
  expectOracle(received, prompt, 11, model);
  expect(received.rows[0]).toMatchObject({ dtype: '<u2', shape: [19, 2, 3] });

  const tokens = [...prompt, ...received.tokens];
  const wanted = (position: number): NextLogprobs => {
    const sequence = new SequenceLogprobs(model.vocabSize, () => 0);
    for (const token of tokens.slice(0, position)) sequence.push(token);
    return sequence.next()!;
  };
  const tensors = received.promptLogprobs as { shape: number[]; ids: number[]; dtype: string }[];
  expect(tensors.map((each) => each?.dtype)).toEqual(['int32', 'float32', 'int32', undefined]);
  expect(tensors[0]).toMatchObject({ shape: [29, 1], ids: prompt.slice(1) });
  expect(tensors[1]!.ids).toEqual(prompt.slice(1).map((token, i) => wanted(i + 1).of(token)));
  expect(tensors[2]!.ids).toEqual(prompt.slice(1).map((token, i) => wanted(i + 1).rankOf(token) + 1));
  const lists = received.logprobs as { shape: number[]; ids: number[]; dtype: string }[][];
  expect(lists).toHaveLength(3);
  for (const [i, token] of received.tokens.entries()) {
    const next = wanted(30 + i);
    const [ids, values, ranks] = lists[i]!;
    expect(ids).toMatchObject({ shape: [1, 3], ids: [token, ...next.top(2).map((each) => each.token)] });
    expect(values!.ids).toEqual([next.of(token), ...next.top(2).map(({ logprob }) => logprob)]);
    expect(ranks!.ids).toEqual([1]);
  }
});

test('parameters without effect are named once', async () => {
  const { frontend, log } = shared;
  const prompt = promptOf(50);
  const extra = { kv_transfer_params: { do_remote_decode: true } };
  const sampling = { max_tokens: 2, ignore_eos: true, extra_args: extra, allowed_token_ids: [1] };
  for (const id of ['first', 'second']) expectOracle(await frontend.generate({ id, prompt, sampling }), prompt);
  for (const name of ['kv_transfer_params', 'allowed_token_ids']) {
    expect(log.filter((line) => line.includes(`${name} has no effect here`))).toHaveLength(1);
  }
});

test('an abort ends a request without a word; one that is aborted immediately too', async () => {
  const { frontend } = shared;
  const endless = { ...greedy, max_tokens: 400 };
  const received = await frontend.add({ id: 'long', prompt: promptOf(20), sampling: endless });
  await frontend.until(() => received.tokens.length > 2);
  await frontend.abort(['long', 'never-seen']);
  const brief = addArray({ id: 'brief', prompt: [1], sampling: endless, at: { 19: true } });
  await frontend.send([Buffer.from([0]), pack(brief)]);
  await frontend.call('get_supported_tasks');
  await expectEngineEmpty(shared);
  expect(received.finishReasons).toEqual([]);
  const again = await frontend.generate({ id: 'long', prompt: [5, 6], sampling: { ...greedy, max_tokens: 2 } });
  expectOracle(again, [5, 6]);
});

test('what the engine cannot do ends with an error for that request, is named, and the others go on', async () => {
  const { frontend, log } = shared;
  const going = frontend.generate({ id: 'going', prompt: promptOf(9), sampling: { ...greedy, max_tokens: 60 } });
  const refused = async (id: string, fields: Record<string, unknown>, words: RegExp): Promise<void> => {
    const received = await frontend.generate({ id, prompt: [1, 2], ...fields });
    expect(received).toMatchObject({ tokens: [], rows: [], finishReasons: [3] });
    expect(log.filter((line) => line.includes(`"${id}" is refused`)).join('\n')).toMatch(words);
  };
  await refused('pooling', { at: { 4: { task: 'embed' } } }, /pooling/);
  await refused('images', { at: { 2: [{ data: null }] } }, /multimodal/);
  await refused('embeds', { prompt: null, at: { 9: ['float32', [1, 1], 1] } }, /embeds/);
  await refused('adapter', { at: { 6: ['lora', 1] } }, /LoRA/);
  await refused('session', { at: { 15: true } }, /resumable/);
  await refused('grammar', { sampling: { structured_outputs: { json: '{}' } } }, /grammar/);
  await refused('words', { prompt: [1, 97] }, /prompt_token_ids\[1\] is 97.*\[0, 97\)/);
  await refused('length', { prompt: promptOf(513) }, /at most 512/);
  await refused('full', { prompt: promptOf(512) }, /leaves no room/);
  await refused('nothing', { prompt: [] }, /empty prompt/);
  await refused('start', { sampling: { routed_experts_prompt_start: 2 } }, /routed_experts_prompt_start 2/);
  await refused('long', { at: { 20: 'x'.repeat(2 ** 20) } }, /at most 1048576/);
  await refused('later', { at: { 21: null } }, /21 fields/);
  await refused('elsewhere', { at: { 11: 5 } }, /client_index is 5/);
  expectOracle(await going, promptOf(9));
});

test('unreadable messages and unknown types are named, and nothing else happens', async () => {
  const { frontend, log } = shared;
  const numBefore = log.length;
  const frames = [
    [Buffer.from([9]), Buffer.from([0x90])],
    [Buffer.from('GET / HTTP/1.1'), Buffer.from('')],
    [Buffer.from([0])],
    [Buffer.from([0]), Buffer.from([0xc1])],
    [Buffer.from([1]), Buffer.from([0x80])],
    [Buffer.from([2]), Buffer.from([0x92, 1, 0xc0])],
    [Buffer.from([3]), Buffer.from([0x94, 0, 0xc0, 0xa1, 0x61, 0x90])],
  ];
  for (const message of frames) await frontend.send(message);
  await expect(frontend.call('no_such_method')).rejects.toThrow('Call to no_such_method method failed: no such method');
  expect(log.slice(numBefore).filter((line) => line.startsWith('warn')).length).toBe(frames.length + 1);
  expect(log.some((line) => line.includes('47455420'))).toBe(true);
});
