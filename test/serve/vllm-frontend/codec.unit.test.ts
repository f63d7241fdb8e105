/** Any request that vLLM can express is read as it was meant; any output is written so that vLLM reads it. */

import type { ExtData } from '@msgpack/msgpack';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { RoutedRows } from '../../../src/contract/routed-rows.ts';
import { readFrontendMessage, type MessageRules } from '../../../src/serve/vllm-frontend/wire/frontend-message.ts';
import { firstText } from '../../../src/serve/vllm-frontend/wire/msgpack.ts';
import { encodeOutputs, type WireOutput } from '../../../src/serve/vllm-frontend/wire/output-message.ts';
import { addArray, pack, unpack } from './mirror-messages.ts';

const VOCAB = 5000;

const rules: MessageRules = {
  vocabSize: VOCAB,
  maxModelLen: 4096,
  numClients: 3,
  rowsFor: 'asked',
  transfer: null,
  maxMessageBytes: 2 ** 22,
};

const token = fc.nat(VOCAB - 1);
/** A free map, as `extra_args` and others are. */
const json = fc.dictionary(
  fc.string().filter((key) => key !== '__proto__'),
  fc.oneof(fc.string(), fc.integer(), fc.double({ noNaN: true }), fc.boolean(), fc.constant(null), fc.array(fc.nat())),
);

const sampling = fc.record(
  {
    n: fc.constant(1),
    temperature: fc.oneof(fc.double({ min: 0, max: 2, noNaN: true }), fc.nat(2)),
    top_p: fc.double({ min: 0, max: 1, noNaN: true }),
    top_k: fc.integer({ min: -1, max: 100 }),
    seed: fc.oneof(fc.nat(), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n })),
    stop: fc.array(fc.string()),
    stop_token_ids: fc.array(fc.nat(2 ** 32 - 3)),
    ignore_eos: fc.constant(true),
    max_tokens: fc.integer({ min: 1, max: 10_000 }),
    min_tokens: fc.nat(100),
    logprobs: fc.integer({ min: -1, max: 20 }),
    prompt_logprobs: fc.nat(20),
    output_kind: fc.nat(2),
    _eos_token_id: token,
    _all_stop_token_ids: fc.array(token),
    logit_bias: fc.uniqueArray(token).map((ids) => new Map(ids.map((id) => [id, -1.5]))),
    allowed_token_ids: fc.array(token),
    bad_words: fc.array(fc.string()),
    extra_args: fc.tuple(json, fc.boolean()).map(([map, asks]) => ({ ...map, return_routed_experts: asks })),
    routed_experts_prompt_start: fc.nat(50),
    skip_reading_prefix_cache: fc.boolean(),
  },
  { requiredKeys: ['stop', 'stop_token_ids', 'bad_words', 'skip_reading_prefix_cache'] },
);

const request = fc.record({
  id: fc.string({ minLength: 1, maxLength: 300, unit: 'grapheme' }),
  prompt: fc.array(token, { minLength: 1, maxLength: 400 }),
  sampling,
  salt: fc.option(fc.string()),
  client: fc.nat(2),
  wave: fc.nat(2 ** 40),
  priority: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
  trace: fc.option(
    fc.dictionary(
      fc.string().filter((key) => key !== '__proto__'),
      fc.string(),
    ),
  ),
  abortsImmediately: fc.boolean(),
  arrival: fc.double({ min: 0, max: 2e9, noNaN: true }),
});

/** `Map`s with integer keys, which vLLM sends and JavaScript's encoder does not. */
function packed(value: unknown): Uint8Array {
  if (value instanceof Map) {
    const items = [...value].flatMap((pair) => pair.map(packed));
    const header = [0xdf, value.size >>> 24, (value.size >> 16) & 255, (value.size >> 8) & 255, value.size & 255];
    return Buffer.concat([Uint8Array.from(header), ...items]);
  }
  if (Array.isArray(value)) {
    return Buffer.concat([Uint8Array.of(0xdc, value.length >> 8, value.length & 255), ...value.map(packed)]);
  }
  const isPlain = typeof value === 'object' && value !== null;
  return isPlain ? packed(new Map(Object.entries(value))) : pack(value);
}

test('any request comes through', () => {
  fc.assert(
    fc.property(request, (given) => {
      const { id, prompt, sampling: params, salt, client, wave, priority, trace, abortsImmediately, arrival } = given;
      const at = { 5: arrival, 7: salt, 12: wave, 13: priority, 14: trace, 19: abortsImmediately };
      const body = packed(addArray({ id, prompt, sampling: params, client, at }));
      expect(firstText(body)).toBe(Buffer.byteLength(id) < 256 ? id : null);
      const message = readFrontendMessage([Uint8Array.of(0), body], 0, rules);
      if (message.kind !== 'add') throw new Error(JSON.stringify(message));
      const { add } = message;
      const wants = params.extra_args?.return_routed_experts === true;
      expect(add.request.sampling).toEqual({
        maxTokens: params.max_tokens ?? 16,
        minTokens: params.min_tokens ?? 0,
        eosTokenId: params.ignore_eos === true ? null : (params['_eos_token_id'] ?? null),
        stopTokenIds: params.stop_token_ids,
        returnRoutedExperts: wants,
        routedExpertsPromptStart: wants ? (params.routed_experts_prompt_start ?? 0) : 0,
      });
      expect(Array.from(add.request.promptTokenIds)).toEqual(prompt);
      expect(add).toMatchObject({
        clientIndex: client,
        wave,
        abortsImmediately,
        logprobs: params.logprobs === undefined ? null : params.logprobs < 0 ? VOCAB : params.logprobs,
        promptLogprobs: params.prompt_logprobs ?? null,
        request: { requestId: id, priority, arrivalTime: arrival },
      });
      const wanted = salt === '' ? null : salt;
      if (!params.skip_reading_prefix_cache) expect(add.request.cacheSalt).toBe(wanted);
      else expect(add.request.cacheSalt).toBe(`${wanted ?? ''}\0${id}`);
      const isListed = (name: string, value: unknown): void => expect(add.ignored.includes(name)).toBe(value);
      isListed('logit_bias', params.logit_bias !== undefined);
      isListed('allowed_token_ids', (params.allowed_token_ids ?? []).length > 0);
    }),
    { numRuns: 80 },
  );
});

test('more log probabilities than one turn can make are refused', () => {
  expect(ask(209, -1)).toBe('add');
  expect(ask(210, -1)).toBe('refused');
  expect(ask(4096, 256)).toBe('add');
  expect(ask(4096, 257)).toBe('refused');
});

test('bytes that are cut or flipped are refused by name, or read; nothing is thrown', () => {
  const whole = packed(addArray({ id: 'cmpl-1', prompt: [1, 2, 3], sampling: { max_tokens: 4 } }));
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.boolean(), (at, byte, isCut) => {
      const bytes = Uint8Array.from(whole);
      bytes[at] = byte;
      const message = readFrontendMessage([Uint8Array.of(0), isCut ? bytes.subarray(0, at) : bytes], 1, rules);
      expect(['add', 'refused', 'unreadable']).toContain(message.kind);
      if (message.kind === 'refused') expect(message.clientIndex).toBe(1);
    }),
    { numRuns: 150 },
  );
  const lie = Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff);
  expect(readFrontendMessage([Uint8Array.of(0), lie], 0, rules).kind).toBe('unreadable');
});

type Rows = Readonly<{ rows: RoutedRows; ids: readonly number[]; numExperts: number }>;

/** Rows in pieces of any length, some of them missing; `ids` is what the reader must see. */
const rows: fc.Arbitrary<Rows> = fc
  .record({
    start: fc.nat(20),
    count: fc.integer({ min: 1, max: 40 }),
    numLayers: fc.integer({ min: 1, max: 4 }),
    topK: fc.integer({ min: 1, max: 3 }),
    numExperts: fc.constantFrom(8, 255, 256, 257, 900),
    rowsPerChunk: fc.integer({ min: 1, max: 50 }),
    hole: fc.option(fc.tuple(fc.nat(39), fc.integer({ min: 1, max: 5 }))),
  })
  .map(({ start, count, numLayers, topK, numExperts, rowsPerChunk, hole }) => {
    const width = numLayers * topK;
    const end = start + count;
    const missing: [number, number][] =
      hole === null || hole[0] >= count ? [] : [[start + hole[0], Math.min(end, start + hole[0] + hole[1])]];
    const isMissing = (position: number): boolean => missing.some(([from, to]) => position >= from && position < to);
    const isByte = numExperts <= 256;
    const fill = numExperts + (missing.length > 0 ? 1 : 0) <= 256 ? 255 : 65_535;
    const idAt = (position: number, entry: number): number => (position * 13 + entry * 7) % numExperts;
    const chunks = Array.from({ length: Math.ceil(end / rowsPerChunk) }, (_, chunk) => {
      const length = rowsPerChunk * width;
      const ids = Array.from({ length }, (__, i) => idAt(chunk * rowsPerChunk + Math.floor(i / width), i % width));
      return isByte ? Uint8Array.from(ids) : Uint16Array.from(ids);
    });
    const ids = Array.from({ length: count * width }, (_, i) => {
      const position = start + Math.floor(i / width);
      return isMissing(position) ? fill : idAt(position, i % width);
    });
    const dtype = isByte ? ('uint8' as const) : ('uint16' as const);
    return { rows: { start, count, numLayers, topK, dtype, rowsPerChunk, chunks, missing }, ids, numExperts };
  });

const logprobs = fc.integer({ min: 1, max: 30 }).chain((width) =>
  fc.array(
    fc.record({
      tokenIds: fc.array(token, { minLength: width, maxLength: width }),
      logprobs: fc.array(fc.integer({ min: -99, max: 0 }), { minLength: width, maxLength: width }),
      rank: fc.nat(VOCAB),
    }),
    { minLength: 1, maxLength: 5 },
  ),
);

const output = fc.record({
  requestId: fc.string(),
  newTokenIds: fc.array(fc.nat(2 ** 31)),
  finishReason: fc.option(fc.constantFrom('stop' as const, 'length' as const, 'abort' as const, 'error' as const)),
  stopReason: fc.option(fc.nat()),
  given: fc.option(rows),
  logprobs: fc.option(logprobs),
  promptLogprobs: fc.option(logprobs),
});

test('any outputs can be read: arrays in their places, frames in the order in which they are named', () => {
  fc.assert(
    fc.property(fc.array(output, { maxLength: 6 }), fc.constantFrom(8, 256, 900), (all, numExperts) => {
      const outputs = all.map(({ given, ...rest }): WireOutput => {
        const fits = given !== null && given.numExperts === numExperts;
        return { ...rest, rows: fits ? given.rows : null, prefill: null, times: null, kvTransferParams: null };
      });
      const frames = encodeOutputs({ engineIndex: 2, timestamp: 1.5, outputs }, numExperts);
      const [index, items, , time] = unpack(frames[0]!) as [number, unknown[][], null, number];
      expect([index, time]).toEqual([2, 1.5]);
      let numNamed = 0;
      const read = (value: unknown): Readonly<{ shape: number[]; ids: number[] }> => {
        const [dtype, shape, data] = value as [string, number[], unknown];
        const isFrame = typeof data === 'number';
        if (isFrame) expect(data).toBe(++numNamed);
        const bytes = Buffer.from(isFrame ? frames[data]! : ((data as ExtData).data as Uint8Array));
        expect(isFrame).toBe(bytes.length >= 256);
        return { shape, ids: itemsOf(bytes, dtype) };
      };
      for (const [i, wire] of items.entries()) {
        const { given, finishReason, logprobs: lists, promptLogprobs: tensors } = all[i]!;
        expect(wire.length).toBe(16);
        expect(wire.slice(0, 2)).toEqual([all[i]!.requestId, all[i]!.newTokenIds]);
        expect(wire[5]).toBe(finishReason && ['stop', 'length', 'abort', 'error'].indexOf(finishReason));
        for (const [place, wanted] of [
          [2, lists],
          [3, tensors],
        ] as const) {
          if (wanted === null) expect(wire[place]).toBeNull();
          else {
            const [ids, values, ranks] = (wire[place] as unknown[]).slice(0, 3).map(read);
            expect(ids!.shape).toEqual([wanted.length, wanted[0]!.tokenIds.length]);
            expect(ids!.ids).toEqual(wanted.flatMap(({ tokenIds }) => tokenIds));
            expect(values!.ids.map((value) => value + 0)).toEqual(
              wanted.flatMap((each) => each.logprobs.map((x) => x + 0)),
            );
            expect(ranks!.ids).toEqual(wanted.map(({ rank }) => rank));
          }
        }
        if (given === null || given.numExperts !== numExperts) expect(wire[12]).toBeNull();
        else {
          const { shape, ids } = read(wire[12]);
          expect(shape).toEqual([given.rows.count, given.rows.numLayers, given.rows.topK]);
          expect(ids).toEqual(given.ids);
        }
      }
      expect(numNamed).toBe(frames.length - 1);
    }),
    { numRuns: 80 },
  );
});

function itemsOf(bytes: Buffer, dtype: string): number[] {
  const size = { '|u1': 1, '<u2': 2 }[dtype] ?? 4;
  return Array.from({ length: bytes.length / size }, (_, i) => {
    if (dtype === '|u1') return bytes[i]!;
    if (dtype === '<u2') return bytes.readUInt16LE(2 * i);
    return dtype === '<f4' || dtype === 'float32' ? bytes.readFloatLE(4 * i) : bytes.readInt32LE(4 * i);
  });
}

/** What becomes of a request for log probabilities of its prompt. */
function ask(length: number, numTop: number): string {
  const prompt = Array.from({ length }, () => 1);
  const body = pack(addArray({ id: 'r', prompt, sampling: { prompt_logprobs: numTop } }));
  return readFrontendMessage([Uint8Array.of(0), body], 0, rules).kind;
}
