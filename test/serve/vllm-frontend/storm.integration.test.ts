/**
 * A storm on the socket of a real engine: messages that are cut, flipped, repeated, late, or of no meaning, between
 * requests that must not notice. Then KV between two engines, behind vLLM's own parameters.
 */

import { expect, test } from 'vitest';
import { Random } from '../../../src/workload/random.ts';
import { smallKv } from '../helpers.ts';
import { attached, expectEngineEmpty, expectOracle, promptOf } from './helpers.ts';
import { type Received } from './mirror-frontend.ts';
import { addArray, pack } from './mirror-messages.ts';

const NUM_ROUNDS = 120;

test('requests come through a storm untouched, and nothing is left behind it', async () => {
  const seed = Number(process.env['STORM_SEED'] ?? 7);
  const random = new Random(seed, 0, 0);
  const running = await attached({}, { numClients: 2 });
  const { frontend, log } = running;
  const late: (() => Promise<void>)[] = [];
  const requests: [Received, number[]][] = [];
  const pick = <T>(items: readonly T[]): T => items[random.below(items.length)]!;
  const bodyOf = (id: string, at = {}): Uint8Array =>
    pack(addArray({ id, prompt: promptOf(1 + random.below(60)), sampling: { max_tokens: 3 }, at }));
  const wrong: readonly ((id: string) => (Uint8Array | Buffer)[])[] = [
    // Cut.
    (id) => {
      const body = bodyOf(id);
      return [Buffer.of(0), body.subarray(0, random.below(body.length))];
    },
    // Flipped.
    (id) => {
      const body = Uint8Array.from(bodyOf(id));
      body[random.below(body.length)]! ^= 1 << random.below(8);
      return [Buffer.of(0), body];
    },
    // With frames too many, or too few.
    (id) => [Buffer.of(0), bodyOf(id), Buffer.alloc(random.below(300))],
    () => [Buffer.of(random.below(256))],
    () => [Buffer.from('READY')],
    // Of another type.
    (id) => [Buffer.of(1 + random.below(3)), bodyOf(id)],
    () => [Buffer.of(3), pack([0, null, 'get_supported_tasks', []])],
    () => [Buffer.of(3), pack([9, 2n ** 64n - 1n, 'get_supported_tasks', []])],
    () => [Buffer.of(1), pack([1, null, { a: 1 }, 'unknown'])],
  ];
  for (let round = 0; round < NUM_ROUNDS; round++) {
    const client = random.below(2);
    if (random.below(4) === 0) {
      const prompt = promptOf(1 + random.below(120), round);
      const sampling = { ignore_eos: true, max_tokens: 1 + random.below(9) };
      const fields = { id: `r${round}`, prompt, sampling, client };
      frontend.expectAt(fields.id, client);
      requests.push([await frontend.add(fields), prompt]);
      // The same message again; the abort of another request.
      if (random.below(2) === 0) await frontend.send([Buffer.of(0), pack(addArray(fields))], client);
      if (random.below(2) === 0) late.push(() => frontend.send([Buffer.of(1), pack([`s${round - 1}`])], client));
    } else {
      const frames = pick(wrong)(`s${round}`);
      if (random.below(3) === 0) late.push(() => frontend.send(frames, client));
      else await frontend.send(frames, client);
    }
    if (random.below(5) === 0) await late.shift()?.();
  }
  for (const send of late) await send();
  await frontend.until(() => requests.every(([received]) => received.finishReasons.length > 0));
  for (const [received, prompt] of requests) expectOracle(received, prompt);
  expect(await frontend.call('get_supported_tasks', [], 1)).toEqual(['generate']);
  expect(frontend.failure, `seed ${seed}`).toBeNull();
  expect(log.filter((line) => line.startsWith('warn')).length).toBeGreaterThan(10);
  await expectEngineEmpty(running);
});

test('an engine prefills for another: KV and rows go over, in vLLM’s kv_transfer_params', async () => {
  const host = { design: 'deltas', kv: smallKv } as const;
  const [p, d] = await Promise.all([attached({ host }), attached({ host })]);
  const prompt = promptOf(50);
  const first = await p.frontend.generate({
    id: 'p',
    prompt,
    sampling: { max_tokens: 1, ignore_eos: true, extra_args: { kv_transfer_params: { do_remote_decode: true } } },
  });
  expect(first.kvTransferParams).toMatchObject({ do_remote_prefill: true, remote_num_tokens: 50 });
  const second = await d.frontend.generate({
    id: 'd',
    prompt,
    sampling: { max_tokens: 7, ignore_eos: true, extra_args: { kv_transfer_params: first.kvTransferParams } },
  });
  expectOracle(second, prompt);
  // This design hands rows out at the end.
  expect(second.rows.map(({ shape }) => shape)).toEqual([[56, 2, 2]]);
  expect(d.engine.served.engine.stats().numExternalTokens).toBeGreaterThan(0);
  const refused = await d.frontend.generate({
    id: 'wrong',
    prompt,
    sampling: { extra_args: { kv_transfer_params: { do_remote_prefill: true, remote_host: 'example.com' } } },
  });
  expect(refused.finishReasons).toEqual([3]);
  expect(d.log.join('\n')).toMatch(/remote_host is "example.com"/);
});
