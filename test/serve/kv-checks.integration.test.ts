// What one engine asks and another answers is checked on both sides, over a real socket: KV of another model, another
// block size, other tokens or another range is never handed out, and never taken over (L4, L9).

import { expect, onTestFinished, test } from 'vitest';
import { Router } from 'zeromq';
import { rowShape } from '../../src/capture/row-shape.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import type { KvLoad } from '../../src/contract/kv-connector.ts';
import { KeptKv } from '../../src/serve/kv/kept-kv.ts';
import { KvClient } from '../../src/serve/kv/kv-client.ts';
import { checksumOf, PROTOCOL, shapeOf, tokenDigest, type ReadHeader } from '../../src/serve/kv/kv-frames.ts';
import { KvLoader, type LoadedKv, type RemoteHandover } from '../../src/serve/kv/kv-loader.ts';
import { KvServer } from '../../src/serve/kv/kv-server.ts';
import { tiny } from './helpers.ts';

const BLOCK_SIZE = 4;
const NUM_TOKENS = 10;
const ENOUGH_MS = 30_000;
const SHAPE = shapeOf(tiny, BLOCK_SIZE);
const PROMPT = Uint32Array.from({ length: NUM_TOKENS }, (_, i) => i + 1);
const { numLayers, topK, dtype, bytesPerRow, entriesPerRow } = rowShape(tiny);

type Question = Omit<ReadHeader, 'protocol' | 'kind' | 'id'>;

const question: Question = {
  engineId: 'e',
  requestId: 'r',
  from: 4,
  to: NUM_TOKENS,
  rowsStart: null,
  shape: SHAPE,
  tokens: tokenDigest(PROMPT, NUM_TOKENS),
};

/** Rows of all tokens: row p holds p. */
const ROWS: RoutedRows = {
  start: 0,
  count: NUM_TOKENS,
  numLayers,
  topK,
  dtype,
  rowsPerChunk: NUM_TOKENS,
  chunks: [Uint8Array.from({ length: NUM_TOKENS * entriesPerRow }, (_, i) => Math.floor(i / entriesPerRow))],
  missing: [],
};

/** An engine that keeps the KV of request `r`, and a connection to it. Reads tell which blocks they were of. */
async function keeper(rows: RoutedRows | null = ROWS): Promise<{ client: KvClient; reads: (readonly number[])[] }> {
  const kept = new KeptKv(() => undefined);
  const blockIds = [3, 1, 2];
  const expiresAt = Date.now() + ENOUGH_MS;
  kept.keep('r', { requestIndex: 0, blockIds, promptTokenIds: PROMPT, numTokens: NUM_TOKENS, expiresAt, rows });
  const reads: (readonly number[])[] = [];
  const server = await KvServer.listen({
    host: '127.0.0.1',
    port: 0,
    engineId: 'e',
    shape: SHAPE,
    blockSize: BLOCK_SIZE,
    kept,
    readKv: (ids) => {
      reads.push(ids);
      return Promise.resolve(new Uint32Array(ids.length * BLOCK_SIZE * 2));
    },
  });
  const client = new KvClient('127.0.0.1', server.port);
  onTestFinished(() => {
    client.close();
    server.close();
    kept.forgetAll();
  });
  return { client, reads };
}

test('a right question gets the blocks of its range, and the rows from where they are wanted', async () => {
  const { client, reads } = await keeper();
  const answer = await client.read({ ...question, rowsStart: 5 }, ENOUGH_MS);
  expect(reads).toEqual([[1, 2]]);
  expect(answer.keys).toHaveLength(2 * BLOCK_SIZE * 2);
  expect([answer.rowsStart, answer.rowsEnd]).toEqual([5, NUM_TOKENS]);
  expect(Array.from(answer.rows)).toEqual(Array.from((ROWS.chunks[0] as Uint8Array).subarray(5 * entriesPerRow)));
});

test.each<readonly [string, Partial<Question>, RegExp]>([
  ['of an engine that was here before', { engineId: 'f' }, /engine f is not here/],
  ['for another model', { shape: shapeOf({ ...tiny, name: 'tinier' }, BLOCK_SIZE) }, /the KV here is of/],
  ['for another block size', { shape: shapeOf(tiny, 2 * BLOCK_SIZE) }, /the KV here is of/],
  ['of an unknown request', { requestId: 's' }, /no KV is kept for request s/],
  ['behind the kept tokens', { to: NUM_TOKENS + 1 }, /is not within 10 tokens/],
  ['from the middle of a block', { from: 5 }, /is not within 10 tokens/],
  ['from before the first token', { from: -4 }, /is not within 10 tokens/],
  ['of no token', { from: 4, to: 4 }, /is not within 10 tokens/],
  ['of half a token', { to: 9.5 }, /is not within 10 tokens/],
  ['of other tokens', { tokens: tokenDigest(PROMPT.toReversed(), NUM_TOKENS) }, /has other tokens here/],
  ['with the digest of other rows', { rowsDigest: 'x' }, /are not those of request r/],
])('a question %s is refused, and nothing is read', async (_, wrong, message) => {
  const { client, reads } = await keeper();
  await expect(client.read({ ...question, ...wrong }, ENOUGH_MS)).rejects.toThrow(message);
  expect(reads).toEqual([]);
});

test.each<readonly [string, RoutedRows | null]>([
  ['a gap', { ...ROWS, missing: [[7, 8]] }],
  ['a late start', { ...ROWS, start: 6, count: 4 }],
  ['an early end', { ...ROWS, count: 9 }],
  ['nothing', null],
])('rows with %s are not sent: a part of them would be taken for all', async (_, rows) => {
  const { client } = await keeper(rows);
  const answer = await client.read({ ...question, rowsStart: 5 }, ENOUGH_MS);
  expect([answer.rowsStart, answer.rowsEnd, answer.rows.length]).toEqual([0, 0, 0]);
  expect(answer.keys).toHaveLength(2 * BLOCK_SIZE * 2);
});

test('every part of a model that shapes its KV or its rows shapes the name that engines compare', () => {
  const changes = { name: 'other', numLayers: 9, numExperts: 9, topK: 1, vocabSize: 9, gateWidth: 9 };
  const names = Object.entries(changes).map(([field, value]) => shapeOf({ ...tiny, [field]: value }, BLOCK_SIZE));
  const all = [SHAPE, shapeOf(tiny, 2 * BLOCK_SIZE), ...names];
  expect(new Set(all).size).toBe(all.length);
});

type Reply = Readonly<{ keys: Uint8Array; rows: Uint8Array; rowsStart: number; rowsEnd: number; checksum?: number }>;

/** Loads [4, 10) from an engine that answers `reply`. */
async function loadFrom(reply: Reply): Promise<LoadedKv> {
  const router = new Router({ linger: 0 });
  await router.bind('tcp://127.0.0.1:*');
  const { keys, rows, ...range } = reply;
  const header = { protocol: PROTOCOL, error: null, checksum: checksumOf(keys, rows), ...range };
  void (async () => {
    for await (const [peer, frame] of router) {
      const { id } = JSON.parse(frame!.toString()) as ReadHeader;
      await router.send([peer!, JSON.stringify({ ...header, id }), keys, rows]);
    }
  })();
  const common = { model: tiny, blockSize: BLOCK_SIZE, shape: SHAPE, loadMs: ENOUGH_MS };
  const loader = await KvLoader.open({ ...common, rows: 'with-kv' });
  onTestFinished(() => {
    loader.close();
    router.close();
  });
  const port = Number(/:(\d+)$/.exec(router.lastEndpoint!)![1]);
  const handover: RemoteHandover = {
    remote: {
      kind: 'remote',
      engineId: 'e',
      requestId: 'r',
      host: '127.0.0.1',
      port,
      numTokens: NUM_TOKENS,
      hasRows: true,
      carried: null,
    },
    promptTokenIds: PROMPT,
    rowsStart: 0,
    readers: new Set(['d']),
    reads: new Map(),
  };
  const load: KvLoad = { loadId: 0, requestId: 'd', from: 4, to: NUM_TOKENS, blockIds: [8, 9] };
  return loader.load(load, handover);
}

const good: Reply = {
  keys: new Uint8Array(2 * BLOCK_SIZE * 8).fill(1),
  rows: new Uint8Array(6 * bytesPerRow).fill(2),
  rowsStart: 4,
  rowsEnd: NUM_TOKENS,
};

test('a right answer is taken over', async () => {
  const { keys, rows } = await loadFrom(good);
  expect(keys).toEqual(new Uint32Array(2 * BLOCK_SIZE * 2).fill(0x0101_0101));
  expect(rows).toMatchObject({ start: 4, count: 6, chunkOrigin: 4, missing: [] });
});

test.each<readonly [string, Partial<Reply>, RegExp]>([
  ['rows of a range before', { rowsStart: 3, rowsEnd: 9 }, /the rows did not come/],
  ['rows of a range behind', { rowsStart: 5, rowsEnd: 11 }, /the rows did not come/],
  ['rows that end early', { rowsEnd: 9, rows: good.rows.subarray(bytesPerRow) }, /the rows did not come/],
  ['a row too few', { rows: good.rows.subarray(bytesPerRow) }, /the rows did not come/],
  ['no rows', { rowsStart: 0, rowsEnd: 0, rows: new Uint8Array(0) }, /the rows did not come/],
  ['a block too few', { keys: good.keys.subarray(BLOCK_SIZE * 8) }, /8 words of KV came for 2 blocks/],
  ['a block too many', { keys: new Uint8Array(3 * BLOCK_SIZE * 8) }, /24 words of KV came for 2 blocks/],
  ['half a word', { keys: good.keys.subarray(2) }, /its checksum is wrong/],
  ['a bit that was turned over', { checksum: checksumOf(good.keys, good.rows) ^ 1 }, /its checksum is wrong/],
])('an answer with %s is not taken over', async (_, wrong, message) => {
  await expect(loadFrom({ ...good, ...wrong })).rejects.toThrow(message);
});
