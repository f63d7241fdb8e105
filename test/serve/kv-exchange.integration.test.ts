// A load belongs to the workers for which it began: when they are lost, nothing that comes of it later reaches the
// engine (L8, L9).

import { once, EventEmitter } from 'node:events';
import { expect, onTestFinished, test } from 'vitest';
import { Router } from 'zeromq';
import type { KvLoadOutcome } from '../../src/contract/kv-connector.ts';
import { KvExchange, type EngineSide } from '../../src/serve/kv/kv-exchange.ts';
import { checksumOf, PROTOCOL, type ReadHeader } from '../../src/serve/kv/kv-frames.ts';
import { smallEngine, smallKv, tiny } from './helpers.ts';

const NUM_TOKENS = 4;
const KEYS = new Uint8Array(smallEngine.blockSize * 8);
const NO_ROWS = new Uint8Array(0);

/** Another engine, which replies when it is told to. Emits `question`. */
class SlowPeer extends EventEmitter {
  readonly #router: Router = new Router({ linger: 0 });
  readonly #questions: Readonly<{ peer: Buffer; id: number }>[] = [];

  async listen(): Promise<number> {
    await this.#router.bind('tcp://127.0.0.1:*');
    onTestFinished(() => this.#router.close());
    void this.#receive();
    return Number(/:(\d+)$/.exec(this.#router.lastEndpoint!)![1]);
  }

  /** Answers the oldest question. */
  async answer(error: string | null = null): Promise<void> {
    const { peer, id } = this.#questions.shift()!;
    const range = { rowsStart: 0, rowsEnd: 0 };
    const header = { protocol: PROTOCOL, id, error, checksum: checksumOf(KEYS, NO_ROWS), ...range };
    await this.#router.send([peer, JSON.stringify(header), KEYS, NO_ROWS]);
  }

  async #receive(): Promise<void> {
    for await (const [peer, frame] of this.#router) {
      const { kind, id } = JSON.parse(frame!.toString()) as ReadHeader;
      if (kind !== 'read') continue;
      this.#questions.push({ peer: peer!, id });
      this.emit('question');
    }
  }
}

/** An engine that remembers how its loads ended. Emits `written` when KV comes, and `finished`. */
class WatchedEngine extends EventEmitter implements EngineSide {
  readonly finished: [loadId: number, kind: KvLoadOutcome['kind']][] = [];
  /** What the next writes wait for. */
  writing: Promise<void> = Promise.resolve();

  finishLoad = (loadId: number, { kind }: KvLoadOutcome): void => {
    this.finished.push([loadId, kind]);
    this.emit('finished');
  };

  releaseBlocks = (): void => {};

  readKv = (): Promise<Uint32Array> => Promise.reject(new Error('nothing is kept here'));

  writeKv = (): Promise<void> => {
    this.emit('written');
    return this.writing;
  };
}

async function makeLoads(): Promise<{
  peer: SlowPeer;
  engine: WatchedEngine;
  exchange: KvExchange;
  begin: (loadId: number) => Promise<unknown>;
}> {
  const peer = new SlowPeer();
  const port = await peer.listen();
  const engine = new WatchedEngine();
  const exchange = new KvExchange({ ...smallKv, role: 'decode', loadMs: 30_000 }, tiny, smallEngine, () => undefined);
  await exchange.open(engine);
  onTestFinished(() => exchange.close());
  const begin = (loadId: number): Promise<unknown> => {
    const requestId = `d${loadId}`;
    const [host, engineId] = ['127.0.0.1', 'p'];
    const remote = { kind: 'remote', host, port, engineId, requestId, numTokens: NUM_TOKENS } as const;
    const params = { ...remote, hasRows: false, carried: null };
    exchange.announce([requestId], params, new Uint32Array(NUM_TOKENS), null);
    const asked = once(peer, 'question');
    exchange.startLoad({ loadId, requestId, from: 0, to: NUM_TOKENS, blockIds: [1] });
    return asked;
  };
  return { peer, engine, exchange, begin };
}

test('a load ends when its KV is written', async () => {
  const { peer, engine, begin } = await makeLoads();
  await begin(0);
  const finished = once(engine, 'finished');
  await peer.answer();
  await finished;
  expect(engine.finished).toEqual([[0, 'loaded']]);
});

test.each([null, 'no'])('workers lost while the KV is fetched: its answer (error: %s) ends no load', async (error) => {
  const { peer, engine, exchange, begin } = await makeLoads();
  await begin(0);
  exchange.onWorkersLost();
  await begin(1);
  const finished = once(engine, 'finished');
  // Answers come in their order: when the second load has ended, the first answer was dealt with.
  await peer.answer(error);
  await peer.answer();
  await finished;
  expect(engine.finished).toEqual([[1, 'loaded']]);
});

test.each(['succeeds', 'fails'] as const)(
  'workers lost while the KV is written: a write that %s ends no load',
  async (end) => {
    const { peer, engine, exchange, begin } = await makeLoads();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    engine.writing = promise;
    await begin(0);
    const written = once(engine, 'written');
    await peer.answer();
    await written;
    exchange.onWorkersLost();
    engine.writing = Promise.resolve();
    if (end === 'succeeds') resolve();
    else reject(new Error('the workers are gone'));
    await begin(1);
    const finished = once(engine, 'finished');
    await peer.answer();
    await finished;
    expect(engine.finished).toEqual([[1, 'loaded']]);
  },
);
