/**
 * Which cached blocks a request begins with. A request that wants rows gets a block that has them where there is one,
 * whichever request cached the tokens first; any other request gets the first inserted block, as in vLLM. Tokens count
 * as refused if they are cached and no block with their rows is.
 */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { EngineConfig } from '../../src/contract/config.ts';
import { fastBlockHasher } from '../../src/engine/kv/block-hash.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { KVCacheManager } from '../../src/engine/kv/kv-cache-manager.ts';
import { PrefixLookup } from '../../src/engine/kv/prefix-lookup.ts';
import { Request } from '../../src/engine/request.ts';
import { FakeWorker, randomFrom } from './fake-worker.ts';
import { RowKeeper } from './row-keeper.ts';

const BLOCK_SIZE = 4;
const NUM_BLOCKS = 8;
/** A full prompt of `NUM_BLOCKS` blocks, and one token more. */
const PROMPT = Uint32Array.from({ length: NUM_BLOCKS * BLOCK_SIZE + 1 }, (_, i) => i % 11);

const CONFIG: EngineConfig = {
  blockSize: BLOCK_SIZE,
  numBlocks: 120,
  maxNumSeqs: 4,
  maxNumBatchedTokens: 256,
  maxModelLen: 64,
  policy: 'fcfs',
  asyncScheduling: false,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: false,
  watermark: 0,
  numSpeculativeTokens: 0,
};

const requestOf = (requestId: string, returnRoutedExperts: boolean) => ({
  requestId,
  promptTokenIds: PROMPT,
  sampling: {
    maxTokens: 1,
    minTokens: 0,
    eosTokenId: null,
    stopTokenIds: [],
    returnRoutedExperts,
    routedExpertsPromptStart: 0,
  },
  priority: 0,
  arrivalTime: 0,
  cacheSalt: null,
});

/** Rows are there of the blocks that wanted requests computed. */
const newKeeper = (): RowKeeper => {
  const keeper = new RowKeeper();
  keeper.keeps = (blockId) => keeper.followed.has(blockId);
  return keeper;
};

test('one ordinary request, then six that want rows: the first of these computes the prompt again, five hit', () => {
  const engine = new EngineCore(CONFIG, newKeeper());
  const worker = new FakeWorker(CONFIG, randomFrom(1));
  const tables: number[][] = [];
  const hits = ['plain', 'r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'plain again'].map((id) => {
    const before = engine.stats().numPrefixHitTokens;
    engine.addRequest(requestOf(id, id.startsWith('r')));
    const plan = engine.beginStep()!;
    tables.push([...plan.newBlockIds.subarray(0, NUM_BLOCKS)]);
    engine.finishStep(worker.execute(plan));
    return engine.stats().numPrefixHitTokens - before;
  });
  const all = NUM_BLOCKS * BLOCK_SIZE;
  expect(hits).toEqual([0, 0, all, all, all, all, all, all]);
  expect(engine.stats()).toMatchObject({ numCachedBlocks: 2 * NUM_BLOCKS, numPrefixRefusedTokens: all });
  const [plain, first] = tables;
  for (const table of tables.slice(2, 7)) expect(table).toEqual(first);
  expect(tables[7]).toEqual(plain);
});

/** Copies of one prompt in a pool of its own, each computed without a look at what is cached. */
class Copies {
  readonly keeper = newKeeper();
  readonly kv = new KVCacheManager(CONFIG, fastBlockHasher, this.keeper);
  readonly lookup = new PrefixLookup(CONFIG, this.kv, this.keeper);
  readonly tables: (readonly number[])[] = [];
  #nextIndex = 0;

  request(wanted: boolean): Request {
    const index = this.#nextIndex;
    this.#nextIndex += 1;
    const request = new Request(index, requestOf(`r${index}`, wanted));
    request.wanted = this.keeper.wants(request);
    return request;
  }

  compute(wanted: boolean, numTokens: number = PROMPT.length): readonly number[] {
    const request = this.request(wanted);
    expect(this.kv.allocateSlots(request, numTokens)).toBe(true);
    this.tables.push([...request.blockIds]);
    return request.blockIds;
  }

  /** The hits of a request, and the tokens that it is refused. */
  find(wanted: boolean): Readonly<{ hits: readonly number[]; numRefused: number }> {
    const request = this.request(wanted);
    const hits = [...this.lookup.find(request)];
    const before = this.lookup.numRefusedTokens;
    request.blockIds = hits;
    this.lookup.take(request, hits.length);
    return { hits, numRefused: this.lookup.numRefusedTokens - before };
  }

  /** As the sentences at the top say it. */
  expected(wanted: boolean): ReturnType<Copies['find']> {
    const { pool } = this.kv;
    const hits: number[] = [];
    let numFound = 0;
    for (; numFound < NUM_BLOCKS; numFound += 1) {
      const copies = this.tables.map((table) => table[numFound]!).filter((id) => id !== undefined && pool.isCached(id));
      if (copies.length === 0) break;
      const usable = wanted ? copies.find((id) => this.keeper.followed.has(id)) : copies[0];
      if (usable !== undefined && hits.length === numFound) hits.push(usable);
    }
    return { hits, numRefused: (numFound - hits.length) * BLOCK_SIZE };
  }
}

describe('copies', () => {
  test('a chain may lead through several: one with rows was evicted, another is there', () => {
    const copies = new Copies();
    const [plain, a, b] = [copies.compute(false), copies.compute(true), copies.compute(true)];
    copies.kv.pool.evict(a[2]!);
    copies.kv.pool.evict(plain[1]!);
    const withRows = [...a.slice(0, 2), b[2]!, ...a.slice(3, NUM_BLOCKS)];
    expect(copies.find(true)).toEqual({ hits: withRows, numRefused: 0 });
    expect(copies.find(false).hits).toEqual([plain[0], a[1], ...plain.slice(2, NUM_BLOCKS)]);
  });

  test('the last copy with rows is evicted: a miss, and all that is cached behind it counts as refused', () => {
    const copies = new Copies();
    copies.compute(false);
    const withRows = copies.compute(true);
    copies.kv.pool.evict(withRows[3]!);
    const numRefused = (NUM_BLOCKS - 3) * BLOCK_SIZE;
    expect(copies.find(true)).toEqual({ hits: withRows.slice(0, 3), numRefused });
  });

  test('a block that no request has cached is not refused', () => {
    const copies = new Copies();
    const blockIds = copies.compute(true, 2 * BLOCK_SIZE);
    expect(copies.find(true)).toEqual({ hits: blockIds, numRefused: 0 });
  });

  test('a design that needs no rows prefers a block that has them, and takes the first inserted without', () => {
    const copies = new Copies();
    const [plain, a] = [copies.compute(false), copies.compute(true)];
    copies.kv.pool.evict(a[1]!);
    copies.keeper.needsRows = false;
    const preferred = [a[0]!, plain[1]!, ...a.slice(2, NUM_BLOCKS)];
    expect(copies.find(true)).toEqual({ hits: preferred, numRefused: 0 });
  });

  test('any copies, any evictions', () => {
    const copy = fc.record({
      wanted: fc.boolean(),
      numTokens: fc.integer({ min: 1, max: PROMPT.length }),
      evicted: fc.array(fc.nat({ max: NUM_BLOCKS - 1 }), { maxLength: 6 }),
    });
    fc.assert(
      fc.property(fc.array(copy, { maxLength: 8 }), (all) => {
        const copies = new Copies();
        for (const { wanted, numTokens, evicted } of all) {
          const table = copies.compute(wanted, numTokens);
          for (const i of new Set(evicted)) {
            const id = table[i];
            if (id !== undefined && copies.kv.pool.isCached(id)) copies.kv.pool.evict(id);
          }
        }
        for (const wanted of [true, false]) expect(copies.find(wanted)).toEqual(copies.expected(wanted));
      }),
      { numRuns: 300 },
    );
  });
});
