// What one engine asks and another replies is checked on both sides, over a real socket: KV of another model, another
// block size, other tokens or another range is never handed out, and never taken over (L4, L9).

import { expect, onTestFinished, test } from 'vitest';
import { Router } from 'zeromq';
import { rowShape } from '../../src/capture/row-shape.ts';
import type { KvLoad } from '../../src/contract/kv-connector.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import { KvKeeper } from '../../src/handover/kv-keeper.ts';
import type { KvAnswer, KvQuestion } from '../../src/handover/kv-message.ts';
import { KvClient, type Fetch } from '../../src/serve/kv/kv-client.ts';
import { KvExchange } from '../../src/serve/kv/kv-exchange.ts';
import { checksumOf, PROTOCOL, shapeOf, tokenDigest, type ReadHeader } from '../../src/serve/kv/kv-frames.ts';
import { KvServer } from '../../src/serve/kv/kv-server.ts';
import type { HostedKv } from '../../src/serve/kv/transfer-params.ts';
import { smallEngine, smallKv, tiny } from './helpers.ts';

const BLOCK_SIZE = 4;
const NUM_TOKENS = 10;
const ENOUGH_MS = 30_000;
const SHAPE = shapeOf(tiny, BLOCK_SIZE);
const PROMPT = Uint32Array.from({ length: NUM_TOKENS }, (_, i) => i + 1);
const shape = rowShape(tiny);
const { numLayers, topK, dtype, bytesPerRow, entriesPerRow } = shape;

const question: KvQuestion = {
  engineId: 'e',
  requestId: 'r/0',
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

const remoteAt = (port: number): HostedKv => {
  const [host, engineId, requestId] = ['127.0.0.1', 'e', 'r/0'];
  return { kind: 'remote', host, port, engineId, requestId, numTokens: NUM_TOKENS, hasRows: true, carried: null };
};

type Ask = (question: KvQuestion) => Promise<KvAnswer>;

/** An engine that keeps the KV of request `r`, and a connection to it. Reads tell which blocks they were of. */
async function keeper(rows: RoutedRows | null = ROWS): Promise<{ ask: Ask; reads: (readonly number[])[] }> {
  const reads: (readonly number[])[] = [];
  const core: KvKeeper = new KvKeeper(
    { ...smallKv, engineId: 'e', blockSize: BLOCK_SIZE, rowShape: shape, shape: SHAPE, tokenDigest },
    {
      wakeAt: () => undefined,
      prepare: (read) => core.prepared(read, 'the digest of the kept rows'),
      readKv: (read, ids) => {
        reads.push(ids);
        core.keysRead(read, new Uint32Array(ids.length * BLOCK_SIZE * 2));
      },
      giveBack: () => undefined,
    },
  );
  core.announce('r', PROMPT);
  const request = { requestId: 'r', index: 0, numTokens: NUM_TOKENS + 1, numPromptTokens: NUM_TOKENS };
  core.keepsBlocks({ ...request, blockIds: [3, 1, 2] }, 0);
  core.ended('r', rows);
  const server = await KvServer.listen(core, { host: '127.0.0.1', port: 0 });
  const { promise, resolve, reject } = Promise.withResolvers<KvAnswer>();
  const client = new KvClient({ host: '127.0.0.1', port: server.port }, shape, {
    answered: (_, answer, isIntact) => (isIntact ? resolve(answer) : reject(new Error('garbled'))),
    refused: (_, reason) => reject(new Error(reason)),
  });
  onTestFinished(() => {
    client.close();
    server.close();
  });
  const remote = remoteAt(server.port);
  const handover = { remote, promptTokenIds: PROMPT, rowsStart: null, readers: new Set<string>() };
  const ask: Ask = (asked) => {
    const fetch: Fetch = { id: 0, handover, question: asked, carried: null, rows: null, deadline: 0, loads: [] };
    void client.ask(fetch);
    return promise;
  };
  return { ask, reads };
}

test('a right question gets the blocks of its range, and the rows from where they are wanted', async () => {
  const { ask, reads } = await keeper();
  const { keys, rows } = await ask({ ...question, rowsStart: 5 });
  expect(reads).toEqual([[1, 2]]);
  expect(keys).toHaveLength(2 * BLOCK_SIZE * 2);
  expect(rows).toMatchObject({ start: 5, count: NUM_TOKENS - 5, missing: [] });
  expect(rows!.chunks).toEqual([(ROWS.chunks[0] as Uint8Array).subarray(5 * entriesPerRow)]);
});

test.each<readonly [string, Partial<KvQuestion>, RegExp]>([
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
  ['with the digest of other rows', { rowsDigest: 'x' }, /are not those of request r\/0/],
])('a question %s is refused, and nothing is read', async (_, wrong, message) => {
  const { ask, reads } = await keeper();
  await expect(ask({ ...question, ...wrong })).rejects.toThrow(message);
  expect(reads).toEqual([]);
});

test.each<readonly [string, RoutedRows | null]>([
  ['a gap', { ...ROWS, missing: [[7, 8]] }],
  ['a late start', { ...ROWS, start: 6, count: 4 }],
  ['an early end', { ...ROWS, count: 9 }],
  ['nothing', null],
])('rows with %s are not sent: a part of them would be taken for all', async (_, rows) => {
  const { ask } = await keeper(rows);
  const answer = await ask({ ...question, rowsStart: 5 });
  expect(answer.rows).toMatchObject({ start: 0, count: 0 });
  expect(answer.keys).toHaveLength(2 * BLOCK_SIZE * 2);
});

test('every part of a model that shapes its KV or its rows shapes the name that engines compare', () => {
  const changes = { name: 'other', numLayers: 9, numExperts: 9, topK: 1, vocabSize: 9, gateWidth: 9 };
  const names = Object.entries(changes).map(([field, value]) => shapeOf({ ...tiny, [field]: value }, BLOCK_SIZE));
  const all = [SHAPE, shapeOf(tiny, 2 * BLOCK_SIZE), ...names];
  expect(new Set(all).size).toBe(all.length);
});

type Reply = Readonly<{ keys: Uint8Array; rows: Uint8Array; rowsStart: number; rowsEnd: number; checksum?: number }>;

type LoadedKv = Readonly<{ keys: Uint32Array; rows: RoutedRows | null }>;

/** Loads [4, 10) from an engine that sends `reply`. Rejects with the reason for which the load fails. */
async function loadFrom(reply: Reply): Promise<LoadedKv> {
  const router = new Router({ linger: 0 });
  await router.bind('tcp://127.0.0.1:*');
  const { keys, rows, ...range } = reply;
  const header = { protocol: PROTOCOL, error: null, checksum: checksumOf(keys, rows), ...range };
  void (async () => {
    for await (const [peer, frame] of router) {
      const { id, kind } = JSON.parse(frame!.toString()) as ReadHeader;
      if (kind === 'read') await router.send([peer!, JSON.stringify({ ...header, id }), keys, rows]);
    }
  })();
  const { promise, resolve, reject } = Promise.withResolvers<LoadedKv>();
  const options = { ...smallKv, role: 'decode', loadMs: ENOUGH_MS } as const;
  const exchange = new KvExchange(options, tiny, { ...smallEngine, blockSize: BLOCK_SIZE }, (_, error) =>
    reject(error),
  );
  let written = new Uint32Array(0);
  await exchange.open({
    finishLoad: (_, outcome) => {
      if (outcome.kind === 'loaded') resolve({ keys: written, rows: outcome.rows });
    },
    releaseBlocks: () => undefined,
    readKv: () => Promise.reject(new Error('nothing is kept here')),
    writeKv: (_, words) => {
      written = words;
      return Promise.resolve();
    },
  });
  onTestFinished(() => {
    exchange.close();
    router.close();
  });
  const port = Number(/:(\d+)$/.exec(router.lastEndpoint!)![1]);
  exchange.announce(['d'], remoteAt(port), PROMPT, 0);
  const load: KvLoad = { loadId: 0, requestId: 'd', from: 4, to: NUM_TOKENS, blockIds: [8, 9] };
  exchange.startLoad(load);
  return promise;
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
