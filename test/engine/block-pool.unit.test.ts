/**
 * Block pool: the same answers as a naive one made of arrays, whatever is taken, touched, cached and freed. Order of
 * the free list, reference counts, copies of a hash in the order of insertion, eviction of followed blocks told once,
 * no double free.
 */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BlockPool } from '../../src/engine/kv/block-pool.ts';

/** Arrays only, each operation as its sentence says it. */
class NaivePool {
  free: number[];
  readonly counts: number[];
  /** Cached blocks in order of insertion. */
  cached: { id: number; hash: number }[] = [];
  readonly followed = new Set<number>();
  readonly evicted: number[] = [];

  constructor(numBlocks: number) {
    this.free = Array.from({ length: numBlocks - 1 }, (_, i) => i + 1);
    this.counts = Array.from({ length: numBlocks }, () => 0);
  }

  take(): number {
    const id = this.free.shift()!;
    this.counts[id] = 1;
    if (this.cached.some((entry) => entry.id === id)) {
      this.cached = this.cached.filter((entry) => entry.id !== id);
      if (this.followed.delete(id)) this.evicted.push(id);
    }
    return id;
  }

  find(hash: number): number[] {
    return this.cached.filter((entry) => entry.hash === hash).map(({ id }) => id);
  }

  touch(id: number): void {
    this.free = this.free.filter((other) => other !== id);
    this.counts[id]! += 1;
  }

  freeTable(table: readonly number[]): void {
    const front: number[] = [];
    const end: number[] = [];
    for (const id of table.toReversed()) {
      this.counts[id]! -= 1;
      if (this.counts[id]! > 0) continue;
      (this.cached.some((entry) => entry.id === id) ? end : front).push(id);
    }
    this.free = [...front, ...this.free, ...end];
  }
}

/** Six hashes, of which three share a bucket. */
const words = (hash: number): Uint32Array => Uint32Array.of(hash % 2 === 0 ? 5 : hash, hash, 7, 9);

type Operation = Readonly<{ kind: 'open' | 'grow' | 'cache' | 'hit' | 'close' | 'reset'; a: number; b: number }>;

const operations = fc.array(
  fc.record({
    kind: fc.constantFrom<Operation['kind']>(
      'open',
      'open',
      'grow',
      'grow',
      'grow',
      'cache',
      'cache',
      'hit',
      'hit',
      'hit',
      'close',
      'reset',
    ),
    a: fc.nat({ max: 1000 }),
    b: fc.nat({ max: 5 }),
  }),
  { minLength: 40, maxLength: 120 },
);

test('it answers as the naive pool does', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 12 }), operations, (numBlocks, steps) => {
      const pool = new BlockPool(numBlocks, 4);
      const naive = new NaivePool(numBlocks);
      const evicted: number[] = [];
      pool.onEvicted = (id) => evicted.push(id);
      const tables: number[][] = [];
      for (const { kind, a, b } of steps) {
        const at = tables.length === 0 ? -1 : a % tables.length;
        const table = tables[at];
        if (kind === 'open') tables.push([]);
        else if (kind === 'grow' && table !== undefined && pool.numFree > 0) {
          const id = pool.take();
          expect(id).toBe(naive.take());
          table.push(id);
        } else if (kind === 'cache' && table !== undefined) {
          const id = table.find((other) => !pool.isCached(other));
          if (id === undefined) continue;
          pool.cache(id, words(b), 0);
          naive.cached.push({ id, hash: b });
          if (a % 2 === 1) {
            pool.follow(id);
            naive.followed.add(id);
          }
        } else if (kind === 'hit' && table !== undefined) {
          const copies: number[] = [];
          for (let id = pool.find(words(b), 0); id >= 0; id = pool.findNext(id)) copies.push(id);
          expect(copies).toEqual(naive.find(b));
          const id = copies[a % copies.length];
          if (id === undefined || table.includes(id)) continue;
          pool.touch(id);
          naive.touch(id);
          table.push(id);
        } else if (kind === 'close' && table !== undefined) {
          tables.splice(at, 1);
          pool.freeTable(table);
          naive.freeTable(table);
        } else if (kind === 'reset') {
          const isFree = tables.every(({ length }) => length === 0);
          expect(pool.resetCache()).toBe(isFree);
          if (isFree) {
            naive.cached = [];
            naive.followed.clear();
          }
        }
        expect(pool.freeQueue()).toEqual(naive.free);
        expect(pool.numFree).toBe(naive.free.length);
        expect(pool.numCached).toBe(naive.cached.length);
        for (let id = 1; id < numBlocks; id += 1) expect(pool.refCount(id)).toBe(naive.counts[id]);
        expect(evicted).toEqual(naive.evicted);
      }
    }),
    { numRuns: 500 },
  );
});

test('a block that is freed twice, or taken from an empty pool, is an error and not a silent leak', () => {
  const pool = new BlockPool(2, 4);
  const id = pool.take();
  expect(() => pool.take()).toThrow('empty pool');
  pool.freeTable([id]);
  expect(() => pool.freeTable([id])).toThrow('freed twice');
});
