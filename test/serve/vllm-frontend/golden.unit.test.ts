/**
 * Frames of vLLM's own encoder, both ways: what it sends is read as it says, what it reads is written with the same
 * values. The frames lie outside the repository, in ../shared/golden.
 */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ExtData } from '@msgpack/msgpack';
import { describe, expect, test } from 'vitest';
import type { FinishReason } from '../../../src/contract/engine-core-output.ts';
import type { RoutedRows } from '../../../src/contract/routed-rows.ts';
import { Handshake, type EngineFacts, type FrontendAddresses } from '../../../src/serve/vllm-frontend/handshake.ts';
import { readFrontendMessage, type MessageRules } from '../../../src/serve/vllm-frontend/wire/frontend-message.ts';
import { unpack } from '../../../src/serve/vllm-frontend/wire/msgpack.ts';
import {
  encodeOutputs,
  encodeReply,
  ENGINE_CORE_DEAD,
  type WireOutput,
} from '../../../src/serve/vllm-frontend/wire/output-message.ts';
import { LAYOUT, outputArray, requestFields } from '../../../src/serve/vllm-frontend/wire/vllm-layout.ts';
import { MessageFrames } from '../../../src/serve/vllm-frontend/wire/wire-array.ts';

const GOLDEN = fileURLToPath(new URL('../../../../shared/golden/engine-core', import.meta.url));
const hasFrames = existsSync(GOLDEN);
if (!hasFrames) console.warn(`no golden frames at ${GOLDEN}: not compared`);

type Json = Record<string, unknown>;
type GoldenArray = Readonly<{ dtype: string; shape: number[]; frame: 'inline' | number; values: number[] }>;
type Golden = Readonly<{ name: string; direction: string; frames: string[]; decoded: Json; note?: string }>;

const golden: readonly Golden[] = hasFrames
  ? readdirSync(GOLDEN)
      .filter((name) => name.endsWith('.json') && name !== 'schema.json')
      .map((name) => JSON.parse(readFileSync(join(GOLDEN, name), 'utf8')) as Golden)
  : [];
const named = (prefix: string): readonly Golden[] => golden.filter(({ name }) => name.startsWith(prefix));
const one = (name: string): Golden => golden.find((each) => each.name === name)!;
const framesOf = ({ frames }: Golden): Buffer[] => frames.map((frame) => Buffer.from(frame, 'base64'));

/** A decoded value as the JSON of the golden files writes it. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return { $int: String(value) };
  if (value instanceof ExtData)
    return { $ext: value.type, $hex: Buffer.from(value.data as Uint8Array).toString('hex') };
  if (value instanceof Uint8Array) return { $hex: Buffer.from(value).toString('hex') };
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
}

const rules: MessageRules = {
  vocabSize: 97,
  maxModelLen: 512,
  numClients: 2,
  rowsFor: 'all',
  transfer: null,
  maxMessageBytes: 2 ** 20,
};

describe.skipIf(!hasFrames)('the golden frames', () => {
  test('are all there', () => {
    expect(golden.length).toBe(96);
  });

  test('field orders are those that vLLM reports', () => {
    const { types } = JSON.parse(readFileSync(join(GOLDEN, 'schema.json'), 'utf8')) as {
      types: Record<string, { fields: { name: string }[] }>;
    };
    const names = (type: string): string[] => types[type]!.fields.map(({ name }) => name);
    expect(LAYOUT.request).toEqual(names('EngineCoreRequest'));
    expect(LAYOUT.output).toEqual(names('EngineCoreOutput'));
    expect(LAYOUT.outputs).toEqual(names('EngineCoreOutputs'));
  });

  test.each(named('add-').map((each) => [each.name, each] as const))('%s is read', (_, each) => {
    const frames = framesOf(each);
    const items = unpack(frames[1]!) as unknown[];
    expect(plain(items)).toEqual(each.decoded['array']);
    const fields = plain(requestFields(items)) as Json;
    expect(fields).toEqual(each.decoded['fields'] ?? fields);
    const message = readFrontendMessage(frames, 0, rules);
    const refused = fields['prompt_embeds'] !== null || fields['resumable'] === true;
    if (refused) {
      expect(message).toMatchObject({ kind: 'refused', requestId: fields['request_id'] });
      return;
    }
    if (message.kind !== 'add') throw new Error(`${message.kind}, not add`);
    const { add } = message;
    const params = fields['sampling_params'] as Json;
    expect(Array.from(add.request.promptTokenIds)).toEqual(fields['prompt_token_ids']);
    expect(add).toMatchObject({
      clientIndex: fields['client_index'],
      wave: fields['current_wave'],
      abortsImmediately: fields['abort_immediately'],
      logprobs: params['logprobs'] ?? null,
      promptLogprobs: params['prompt_logprobs'] ?? null,
      request: { requestId: fields['request_id'], priority: fields['priority'], arrivalTime: fields['arrival_time'] },
    });
    expect(add.request.sampling).toEqual({
      maxTokens: params['max_tokens'] ?? 16,
      minTokens: params['min_tokens'] ?? 0,
      eosTokenId: params['_eos_token_id'] ?? null,
      stopTokenIds: params['stop_token_ids'],
      returnRoutedExperts: true,
      routedExpertsPromptStart: params['routed_experts_prompt_start'] ?? 0,
    });
    if (params['skip_reading_prefix_cache'] === false) expect(add.request.cacheSalt).toBe(fields['cache_salt']);
    else expect(add.request.cacheSalt).toContain(add.request.requestId);
  });

  test.each([...named('abort-'), ...named('start-dp-wave')].map((each) => [each.name, each] as const))(
    '%s is read',
    (_, each) => {
      const message = readFrontendMessage(framesOf(each), 0, rules);
      const { requestIds, 'wave,excludedEngine': wave } = each.decoded;
      if (message.kind === 'abort') expect(message.requestIds).toEqual(requestIds);
      else
        expect(message).toEqual({ kind: 'start-wave', wave: (wave as number[])[0], excluded: (wave as number[])[1] });
    },
  );

  const calls = named('utility-').filter(({ name }) => !name.endsWith('-reply'));
  test.each(calls.map((each) => [each.name, each] as const))('%s is read, and its reply written', (name, each) => {
    const message = readFrontendMessage(framesOf(each), 0, rules);
    const { clientIndex, callId, method, args } = each.decoded;
    const call = { clientIndex, callId: BigInt(callId as string), method, args };
    expect(message).toEqual({ kind: 'utility', call });
    const reply = one(`${name}-reply`);
    const array = reply.decoded['array'] as unknown[];
    const id = BigInt(reply.decoded['callId'] as string);
    const failure = reply.decoded['failureMessage'] as string | null;
    const [frame, ...more] = encodeReply(0, array[3] as number, {
      callId: id,
      ...(failure === null ? { result: reply.decoded['result'] } : { failure }),
    });
    expect(more).toEqual([]);
    expect(plain(unpack(frame!))).toEqual(array);
    expect(plain(unpack(framesOf(reply)[0]!))).toEqual(array);
  });

  test.each(named('outputs-').map((each) => [each.name, each] as const))('%s is written', (name, each) => {
    const frames = framesOf(each);
    const array = each.decoded['array'] as unknown[];
    expect(plain(unpack(frames[0]!))).toEqual(array);
    const fields = each.decoded['fields'] as Json;
    const arrays = [...(each.decoded['arrays'] as (GoldenArray & { output: number })[])];
    const outputs = (each.decoded['outputFields'] as Json[]).map((output, i) => {
      const rows = arrays.find((candidate) => candidate.output === i) ?? null;
      return wireOutput(output, rows);
    });
    // What this engine never says, and what it says in fewer words, is put together by hand.
    if (['outputs-finish-repetition', 'outputs-wave-complete', 'outputs-routed-zero-rows'].includes(name)) return;
    const written = encodeOutputs(
      {
        engineIndex: fields['engine_index'] as number,
        timestamp: fields['timestamp'] as number,
        outputs,
        stats: fields['scheduler_stats'] as Json | null,
        finishedRequests: fields['finished_requests'] as string[] | null,
        ...(fields['start_wave'] === null ? {} : { startWave: fields['start_wave'] as number }),
      },
      arrays[0]?.dtype === '<u2' ? 512 : 256,
    );
    const wanted = structuredClone(array) as unknown[][];
    // Counters that vLLM leaves to the engine.
    for (const output of wanted[1] as Json[][]) {
      if (output[11] !== null) output[11]!['num_cache_creation_tokens'] = 0;
    }
    expect(plain(unpack(written[0]!))).toEqual(wanted);
    expect(written.slice(1).map((frame) => Buffer.from(frame).toString('hex'))).toEqual(
      frames.slice(1).map((frame) => frame.toString('hex')),
    );
  });

  test('an array without rows, which this engine leaves out, has no bytes', () => {
    const { decoded } = one('outputs-routed-zero-rows');
    const output = (decoded['outputFields'] as Json[])[0]!;
    const items = new MessageFrames().place({ dtype: '|u1', shape: [0, 4, 2], items: new Uint8Array(0) });
    expect(plain(outputArray({ ...output, routed_experts: items }))).toEqual(
      ((decoded['array'] as unknown[])[1] as unknown[])[0],
    );
  });

  test('the last words of an engine are written byte for byte', () => {
    expect(Buffer.from(ENGINE_CORE_DEAD)).toEqual(framesOf(one('engine-dead'))[0]);
  });

  test('the handshake is read and written', () => {
    const [facts, ready] = [factsOf(one('ready-response').decoded), one('ready-response')];
    const joined = handshakeWith(framesOf(one('handshake-init'))[0]!, facts, null);
    expect(joined.said.map((frame) => plain(unpack(frame)))).toEqual([
      one('handshake-hello').decoded,
      one('handshake-ready').decoded,
    ]);
    expect(joined.addresses).toMatchObject({ coordinator: null, stats: null, inputs: ['tcp://127.0.0.1:30675'] });
    const response = unpack(joined.response!) as Json;
    expect(Object.keys(response).sort()).toEqual(Object.keys(ready.decoded).sort());
    const differing = ['kv_cache_size_tokens', 'kv_cache_max_concurrency', 'enable_sleep_mode'];
    for (const [key, value] of Object.entries(ready.decoded)) {
      if (!differing.includes(key)) expect(plain(response[key]), key).toEqual(value);
    }

    const hash = one('handshake-ready-dp').decoded['parallel_config_hash'] as string;
    const two = handshakeWith(framesOf(one('handshake-init-dp'))[0]!, facts, hash, framesOf(one('coordinator-ready')));
    expect(plain(unpack(two.said[1]!))).toEqual(one('handshake-ready-dp').decoded);
    expect(two.addresses).toEqual({
      inputs: ['tcp://127.0.0.1:30675', 'tcp://127.0.0.1:30677'],
      outputs: ['tcp://127.0.0.1:30676', 'tcp://127.0.0.1:30678'],
      coordinator: { input: 'tcp://127.0.0.1:30679', output: 'tcp://127.0.0.1:30680' },
      stats: 'ipc://stats',
    });
    expect(unpack(two.response!)).toMatchObject({ dp_stats_address: 'ipc://stats', data_parallel_size: 2 });
    expect(handshakeWith(framesOf(one('handshake-init-dp'))[0]!, facts, null).failure).toMatch(/hash/);
  });
});

type Joined = {
  said: Uint8Array[];
  addresses: FrontendAddresses | null;
  response: Uint8Array | null;
  failure: string | null;
  isJoined: boolean;
};

function handshakeWith(
  init: Uint8Array,
  engine: EngineFacts,
  parallelConfigHash: string | null,
  coordinator: Uint8Array[] | null = null,
): Joined {
  const seen: Joined = { said: [], addresses: null, response: null, failure: null, isJoined: false };
  const handshake = new Handshake(
    { address: 'tcp://test', engine, parallelConfigHash },
    {
      say: (frame) => seen.said.push(frame),
      join: (addresses, response) => Object.assign(seen, { addresses, response }),
      joined: () => (seen.isJoined = true),
      fail: (error) => (seen.failure = error.message),
    },
  );
  handshake.begin();
  handshake.onFrame(init);
  if (coordinator !== null) {
    expect(seen.isJoined).toBe(false);
    expect(handshake.onCoordinator(coordinator)).toBe(true);
  }
  expect(seen.isJoined).toBe(seen.failure === null);
  return seen;
}

function factsOf(response: Json): EngineFacts {
  const number = (key: string): number => response[key] as number;
  return {
    engineIndex: number('data_parallel_rank'),
    version: response['vllm_version'] as string,
    instanceId: response['instance_id'] as string,
    maxModelLen: number('max_model_len'),
    numBlocks: number('num_gpu_blocks'),
    blockSize: number('block_size'),
    maxNumSeqs: number('max_num_seqs'),
    maxNumBatchedTokens: number('max_num_batched_tokens'),
    numWorkers: number('world_size'),
    numStages: number('pipeline_parallel_size'),
  };
}

const REASONS: readonly FinishReason[] = ['stop', 'length', 'abort', 'error'];

function wireOutput(output: Json, rows: GoldenArray | null): WireOutput {
  const events = output['events'] as { timestamp: number }[] | null;
  const prefill = output['prefill_stats'] as Record<string, number> | null;
  return {
    requestId: output['request_id'] as string,
    newTokenIds: output['new_token_ids'] as number[],
    finishReason: output['finish_reason'] === null ? null : REASONS[output['finish_reason'] as number]!,
    stopReason: output['stop_reason'] as number | null,
    rows: rows === null ? null : rowsOf(rows),
    logprobs: null,
    promptLogprobs: null,
    prefill: prefill && {
      numPromptTokens: prefill['num_prompt_tokens']!,
      numCachedTokens: prefill['num_cached_tokens']!,
      numPreemptions: 0,
    },
    times: events && { queued: events[0]!.timestamp, scheduled: events[1]!.timestamp },
    kvTransferParams: output['kv_transfer_params'] as Json | null,
  };
}

function rowsOf({ dtype, shape, values }: GoldenArray): RoutedRows {
  const [count, numLayers, topK] = shape as [number, number, number];
  const isNarrow = dtype === '|u1';
  const chunks = [isNarrow ? Uint8Array.from(values) : Uint16Array.from(values)];
  const rowsPerChunk = Math.max(1, count);
  return { start: 0, count, numLayers, topK, dtype: isNarrow ? 'uint8' : 'uint16', rowsPerChunk, chunks, missing: [] };
}
