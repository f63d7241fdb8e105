/**
 * The library as its users see it: tokens and rows of the oracle, ends of every kind, bad options, and nothing left
 * behind.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  createEngine,
  rowAt,
  toArray,
  type Engine,
  type EngineOptions,
  type GenerateOptions,
  type RoutedRows,
} from '../../src/index.ts';
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
    [new Set([1, 2]) as unknown as number[], 'BAD_VALUE'],
  ])('refuses the prompt of case %#', async (prompt, code) => {
    await expect(engine.generate(prompt)).rejects.toMatchObject({ code });
  });

  test.each([
    [{ return_routed_experts: true }, 'UNKNOWN_NAME', 'option of generate "return_routed_experts"'],
    [{ returnRoutedExperts: 'yes' }, 'BAD_VALUE', 'returnRoutedExperts is yes; give true or false'],
    [{ stopTokenIds: 5 }, 'BAD_VALUE', 'stopTokenIds is 5'],
    [{ stopTokenIds: [97] }, 'BAD_VALUE', 'stopTokenIds[0] is 97; give a token id in [0, 97)'],
    [{ eosTokenId: -1 }, 'BAD_VALUE', 'eosTokenId is -1'],
    [{ requestId: 7 }, 'BAD_VALUE', 'requestId is 7'],
    [{ cacheSalt: 7 }, 'BAD_VALUE', 'cacheSalt is 7'],
    [{ signal: {} }, 'BAD_VALUE', 'signal is [object Object]; give an AbortSignal'],
  ])('refuses %j', async (options, code, text) => {
    const rejection = expect(engine.generate(PROMPT, options as GenerateOptions)).rejects;
    await rejection.toMatchObject({ code, message: expect.stringContaining(text) as string });
  });
});

test.each([
  [{ model: 'no-such-model' }, 'UNKNOWN_NAME', 'no-such-model'],
  [{ model: 'tiny', design: 'no-such-design' }, 'UNKNOWN_NAME', 'no-such-design'],
  [{ model: 'tiny', device: 'tpu' }, 'BAD_VALUE', 'device is tpu'],
  [{ model: 'tiny', clockTimes: { stepMs: 5 } }, 'BAD_VALUE', "device is cpu; give 'clock', or leave out clockTimes"],
  [{ model: 'tiny', device: 'clock', clockTimes: { stepMs: -1 } }, 'BAD_VALUE', 'clockTimes.stepMs is -1'],
  [{ model: 'tiny', device: 'clock', ballastMs: 2 }, 'BAD_VALUE', 'ballastMs is 2; give 0 with device clock'],
  [{ model: 'tiny', numRanks: 0 }, 'BAD_VALUE', 'numRanks is 0'],
  [{ model: 'tiny', engine: { numBlocks: 3, maxModelLen: 128 } }, 'BAD_VALUE', 'numBlocks is 3; give at least 9'],
  [{ model: 'tiny', engine: { blockSize: 0 } }, 'BAD_VALUE', 'blockSize'],
  [{ model: 'tiny', engine: { maxModelLen: 0 } }, 'BAD_VALUE', 'maxModelLen is 0'],
  [{ model: undefined }, 'BAD_VALUE', 'model is undefined'],
  [{ model: 'tiny', prefixRows: 'all' }, 'UNKNOWN_NAME', 'prefix-rows policy "all"'],
  [{ model: 'tiny', stepTimeoutMs: Infinity }, 'BAD_VALUE', 'stepTimeoutMs is Infinity'],
  [
    { model: 'tiny', pipelineParallel: 3 },
    'BAD_VALUE',
    '--pipeline-parallel (pipelineParallel) is 3; give stages in [1, 2], the layers of tiny',
  ],
  [
    { model: 'tiny', pipelineSplit: [3] },
    'BAD_VALUE',
    '--pipeline-split (pipelineSplit) is "3"; give layers of each stage',
  ],
  [
    { model: 'tiny', pipelineParallel: 2, numRanks: 3 },
    'BAD_VALUE',
    '--ranks (numRanks) is 3; give a multiple of the 2 stages',
  ],
  [
    { model: 'tiny', pipelineParallel: 2, queueDepth: 3 },
    'BAD_VALUE',
    '--queue-depth (queueDepth) is 3; give at most 2',
  ],
  [{ model: 'tiny', pipelineParallel: 2, design: 'slot-store' }, 'STAGES_REFUSED', 'design "slot-store" refuses'],
  [{ model: 'tiny', rowsLayers: 'dense' }, 'BAD_VALUE', 'rowsLayers is dense; give routers or all'],
  [{ model: 'tiny', adapter: 7 }, 'BAD_VALUE', 'adapter is 7'],
  [{ model: 'tiny', queueDepth: '2' }, 'BAD_VALUE', 'queueDepth is "2"; give a whole number'],
  [{ model: 'tiny', design: 7 }, 'BAD_VALUE', 'design is 7'],
  [{ model: 'tiny', desing: 'off' }, 'UNKNOWN_NAME', 'unknown option of createEngine "desing"'],
  [{ model: 'tiny', engine: { blocksize: 4 } }, 'UNKNOWN_NAME', 'unknown option of engine "blocksize"'],
])('bad options, %j: rejects with a code and the value', async (options, code, text) => {
  const rejection = expect(createEngine({ device: 'cpu', ...options } as EngineOptions)).rejects;
  await rejection.toMatchObject({ code, message: expect.stringContaining(text) as string });
});

test.each([undefined, null, 'tiny'])('bad options, %j: says what to give', async (options) => {
  const rejection = expect(createEngine(options as unknown as EngineOptions)).rejects;
  const text = `the object given to createEngine is ${options}; give an object with any of: model, `;
  await rejection.toMatchObject({ code: 'BAD_VALUE', message: expect.stringContaining(text) as string });
});

test('rows count all layers of the model, if that is asked for, with zeros where a layer is dense', async () => {
  const model = modelPreset('tiny-dense');
  const engine = await createEngine({ model, device: 'cpu', rowsLayers: 'all', engine: { maxModelLen: 128 } });
  const { rows, tokenIds } = await engine.generate(PROMPT, { maxTokens: 4, returnRoutedExperts: true });
  await engine.close();
  expect(rows).toMatchObject({ numLayers: 6, layers: [2, 3, 5], missing: [] });
  const expected = oracle(model, [...PROMPT, ...tokenIds]).rows;
  for (let position = 0; position < rows!.count; position++) {
    const [a, b, c, d, e, f] = expected.subarray(position * 6, position * 6 + 6);
    expect([...rowAt(rows!, position)!]).toEqual([0, 0, 0, 0, a, b, c, d, 0, 0, e, f]);
  }
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
