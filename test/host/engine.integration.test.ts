/**
 * The library as its users see it: tokens and rows of the oracle, ends of every kind, bad options, and nothing left
 * behind.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createEngine, rowAt, toArray, type Engine, type RoutedRows } from '../../src/index.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { oracle } from '../../src/kernels/model/oracle.ts';

const PROMPT = Array.from({ length: 40 }, (_, i) => (i * 7) % 97);

describe('an engine', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createEngine({ model: 'tiny', device: 'cpu', engine: { maxModelLen: 128 } });
  });
  afterAll(() => engine.close());

  test('generates the tokens and rows of the oracle, and no row for a request that asks for none', async () => {
    const [asked, plain] = await Promise.all([
      engine.generate(PROMPT, { maxTokens: 8, returnRoutedExperts: true }),
      engine.generate(PROMPT, { maxTokens: 8 }),
    ]);
    expect(plain.rows).toBeNull();
    expect(plain.tokenIds).toEqual(asked.tokenIds);
    expect(asked.finishReason).toBe('length');
    const { rows } = asked;
    expect([rows!.start, rows!.count, rows!.missing]).toEqual([0, PROMPT.length + 8 - 1, []]);
    expectOracle([...PROMPT, ...asked.tokenIds], rows!);
  });

  test('streams the same tokens as they come', async () => {
    const streamed: number[] = [];
    let rows: RoutedRows | null = null;
    for await (const { newTokenIds, result } of engine.stream(PROMPT, { maxTokens: 20, returnRoutedExperts: true })) {
      streamed.push(...newTokenIds);
      rows = result?.rows ?? null;
    }
    expect(streamed).toEqual((await engine.generate(PROMPT, { maxTokens: 20 })).tokenIds);
    expectOracle([...PROMPT, ...streamed], rows!);
  });

  test('an abort ends a request with what it has', async () => {
    const stream = engine.stream(PROMPT, { requestId: 'r', maxTokens: 80, returnRoutedExperts: true });
    await stream.next();
    engine.abort('r');
    let last: Awaited<ReturnType<Engine['generate']>> | null = null;
    for await (const { result } of stream) last = result;
    expect(last!.finishReason).toBe('abort');
    expect(last!.rows!.count).toBe(PROMPT.length + last!.tokenIds.length - 1);
    engine.abort('nobody');
  });

  test('a signal rejects with its reason, before and while the request runs', async () => {
    const reason = new Error('enough');
    await expect(engine.generate(PROMPT, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const stream = engine.stream(PROMPT, { maxTokens: 80, signal: controller.signal });
    await stream.next();
    controller.abort(reason);
    await expect(stream.next()).rejects.toBe(reason);
  });

  test('a reader who leaves ends the request', async () => {
    for await (const _ of engine.stream(PROMPT, { maxTokens: 80 })) break;
    expect(engine.stats()).toMatchObject({ numRunning: 0, numWaiting: 0 });
  });

  test('a reader that is late to leave does not end a later request of the same id', async () => {
    const first = engine.stream(PROMPT, { requestId: 'again', maxTokens: 1 });
    for (let last = await first.next(); last.value?.result == null;) last = await first.next();
    const second = engine.generate(PROMPT, { requestId: 'again', maxTokens: 40 });
    await first.return();
    expect(await second).toMatchObject({ finishReason: 'length' });
  });

  test('a cache reset computes the same again', async () => {
    const before = await engine.generate(PROMPT, { maxTokens: 4 });
    expect(before.numCachedTokens).toBeGreaterThan(0);
    expect(engine.resetPrefixCache(true)).toBe(true);
    const after = await engine.generate(PROMPT, { maxTokens: 4 });
    expect(after).toMatchObject({ tokenIds: before.tokenIds, numCachedTokens: 0 });
  });

  test.each([
    [[], 'EMPTY_PROMPT'],
    [[1, 97], 'BAD_VALUE'],
    [[1, 0.5], 'BAD_VALUE'],
    [Array<number>(128).fill(1), 'PROMPT_TOO_LONG'],
  ])('refuses the prompt of case %#', async (prompt, code) => {
    await expect(engine.generate(prompt)).rejects.toMatchObject({ code });
  });
});

test.each([
  [{ model: 'no-such-model' }, 'UNKNOWN_NAME', 'no-such-model'],
  [{ model: 'tiny', design: 'no-such-design' as 'off' }, 'UNKNOWN_NAME', 'no-such-design'],
  [{ model: 'tiny', device: 'tpu' as 'cpu' }, 'BAD_VALUE', 'device is tpu'],
  [{ model: 'tiny', numRanks: 0 }, 'BAD_VALUE', 'numRanks is 0'],
  [{ model: 'tiny', engine: { numBlocks: 3, maxModelLen: 128 } }, 'BAD_VALUE', 'numBlocks is 3; give at least 9'],
  [{ model: 'tiny', engine: { blockSize: 0 } }, 'BAD_VALUE', 'blockSize'],
])('bad options, case %#: rejects with a code and the value', async (options, code, text) => {
  const rejection = expect(createEngine({ device: 'cpu', ...options })).rejects;
  await rejection.toMatchObject({ code, message: expect.stringContaining(text) as string });
});

test('close ends what runs, twice; then nothing is taken in', async () => {
  const engine = await createEngine({
    model: 'tiny',
    device: 'cpu',
    design: 'slot-store',
    engine: { maxModelLen: 128 },
  });
  const running = engine.generate(PROMPT, { maxTokens: 80 });
  const end = expect(running).resolves.toMatchObject({ finishReason: 'abort' });
  await Promise.all([engine.close(), engine.close()]);
  await end;
  await expect(engine.generate(PROMPT)).rejects.toMatchObject({ code: 'ENGINE_DEAD' });
});

function expectOracle(tokens: readonly number[], rows: RoutedRows): void {
  const expected = oracle(modelPreset('tiny'), tokens).rows;
  const width = rows.numLayers * rows.topK;
  expect([...toArray(rows, 0xff)]).toEqual([...expected.subarray(0, rows.count * width)]);
  expect([...rowAt(rows, rows.count - 1)!]).toEqual([
    ...expected.subarray((rows.count - 1) * width, rows.count * width),
  ]);
}
