/** What the tier keeps, finds and brings back, event by event. The storms bring the orders. */

import { expect, test } from 'vitest';
import { rowShape } from '../../../src/capture/row-shape.ts';
import type { EvictedRows, KvLoadOutcome } from '../../../src/contract/kv-connector.ts';
import type { CaptureRequest } from '../../../src/contract/request.ts';
import { FileBlocks, type FileEntry } from '../../../src/handover/tier/file-blocks.ts';
import { KvTier, type TierCopy, type TierLoad } from '../../../src/handover/tier/kv-tier.ts';
import type { TierBlock } from '../../../src/handover/tier/tier-block.ts';

const SIZE = 4;
const SHAPE = rowShape({ name: 't', numLayers: 1, numExperts: 8, topK: 1, vocabSize: 29, gateWidth: 8 });
const HASHES = Uint32Array.of(11, 12, 13, 14);

class Driven {
  readonly copies: TierCopy[] = [];
  readonly writes: TierLoad[] = [];
  readonly ends: KvLoadOutcome[] = [];
  readonly reads: [FileEntry, TierBlock][] = [];
  readonly written: [FileEntry, TierBlock][] = [];
  readonly removed: FileEntry[] = [];
  readonly files: FileBlocks;
  readonly tier: KvTier;
  #numLoads = 0;

  constructor({ capacity = 8, mostCopies = 2, found = [] as FileEntry[] } = {}) {
    this.files = new FileBlocks(
      { nameOf: (hash) => hash, capacity: 8, found },
      {
        read: (...read) => void this.reads.push(read),
        write: (...write) => void this.written.push(write),
        remove: (entry) => void this.removed.push(entry),
      },
    );
    this.tier = new KvTier(
      { capacity, mostCopies, blockSize: SIZE, rowShape: SHAPE },
      {
        readKv: (copy) => void this.copies.push(copy),
        writeKv: (load) => void this.writes.push(load),
        finishLoad: (_, outcome) => void this.ends.push(outcome),
      },
      this.files,
    );
  }

  evict(ordinal: number, rows: EvictedRows | null = null): void {
    this.tier.evicted({ blockId: 1 + ordinal, hashes: HASHES, at: ordinal, hashWords: 1, rows });
    this.tier.planned();
  }

  /** A request whose prompt has the hashes looks for them, and loads what it finds. */
  load({ needsRows = false, rowsStart = 0, numBlocks = 4 } = {}): number {
    const numTokens = this.tier.find(
      {
        requestId: 'r',
        blockHashes: HASHES,
        blockHashWords: 1,
        numTokens: numBlocks * SIZE + 1,
        returnRoutedExperts: true,
        routedExpertsPromptStart: rowsStart,
      } as CaptureRequest,
      { numComputed: 0, needsRows },
    )?.numTokens;
    if (numTokens === undefined) return 0;
    const blockIds = Array.from({ length: numTokens / SIZE }, (_, i) => 20 + i);
    this.tier.startLoad({ loadId: this.#numLoads++, requestId: 'r', from: 0, to: numTokens, blockIds });
    this.tier.planned();
    return numTokens;
  }

  come(copy: number, first: number = 100): void {
    const { blocks } = this.copies[copy]!;
    this.tier.keysRead(
      this.copies[copy]!,
      Uint32Array.from({ length: blocks.length * 2 * SIZE }, (_, i) => first + i),
    );
  }
}

/** Rows `id` of block `ordinal`, from its token `offset` on. */
function rowsOf(ordinal: number, id: number, { offset = 0, stand = () => true } = {}): EvictedRows {
  return { from: ordinal * SIZE + offset, read: () => (stand() ? new Uint8Array(SIZE).fill(id) : null) };
}

test('a block that is on its way is found, and written to the device only when it has come', () => {
  const driven = new Driven();
  driven.evict(0);
  expect(driven.load()).toBe(SIZE);
  expect(driven.writes).toHaveLength(0);
  driven.come(0);
  expect(driven.writes).toHaveLength(1);
  expect([...driven.writes[0]!.blocks[0]!.keys!]).toEqual([100, 101, 102, 103, 104, 105, 106, 107]);
  driven.tier.written(driven.writes[0]!);
  expect(driven.ends).toMatchObject([{ kind: 'loaded' }]);
  expect(driven.tier.liveCounts()).toEqual({ blocks: 1, copies: 0, loads: 0, files: 1 });
});

test('all that one planning evicts is one copy, and a prefix ends with its first gap', () => {
  const driven = new Driven();
  for (const at of [0, 1, 3]) driven.tier.evicted({ blockId: 1 + at, hashes: HASHES, at, hashWords: 1, rows: null });
  driven.tier.planned();
  driven.tier.planned();
  expect(driven.copies.map(({ blockIds }) => blockIds)).toEqual([[1, 2, 4]]);
  driven.come(0);
  expect(driven.load()).toBe(2 * SIZE);
});

test('the block used longest ago goes first; one that is on its way keeps its place', () => {
  const driven = new Driven({ capacity: 2, mostCopies: 9 });
  driven.evict(0);
  driven.evict(1);
  driven.evict(2);
  expect(driven.tier.counts.blocksSkipped).toBe(1);
  driven.come(0);
  driven.come(1);
  expect(driven.load({ numBlocks: 1 })).toBe(SIZE);
  driven.evict(3);
  expect(driven.tier.liveCounts().blocks).toBe(2);
  // Block 1 has made room for block 3, and is found in its file only once that is whole.
  expect(driven.load()).toBe(SIZE);
});

test('what is evicted while too many copies are under way is not kept', () => {
  const driven = new Driven({ mostCopies: 1 });
  driven.evict(0);
  driven.evict(1);
  expect(driven.tier.counts.blocksSkipped).toBe(1);
  driven.come(0);
  driven.evict(1);
  expect(driven.copies).toHaveLength(2);
});

test('rows come back with their block; those that were never computed are missing, or make it a miss', () => {
  const driven = new Driven();
  driven.evict(0, rowsOf(0, 5, { offset: 2 }));
  driven.evict(1, null);
  driven.come(0);
  driven.come(1);
  expect(driven.load({ needsRows: true })).toBe(0);
  expect(driven.load({ needsRows: true, rowsStart: 2 })).toBe(SIZE);
  expect(driven.load({ needsRows: true, rowsStart: 2 * SIZE })).toBe(2 * SIZE);
  expect(driven.load()).toBe(2 * SIZE);
  driven.tier.written(driven.writes.at(-1)!);
  const [{ rows }] = driven.ends as [KvLoadOutcome & { kind: 'loaded' }];
  expect(rows).toMatchObject({
    start: 0,
    count: 8,
    rowsPerChunk: SIZE,
    missing: [
      [0, 2],
      [4, 8],
    ],
  });
  expect([...rows!.chunks[0]!]).toEqual([5, 5, 5, 5]);
});

test('rows under way when their block is evicted count when they stand, and are copied', () => {
  let isThere = false;
  const memory = new Uint8Array(SIZE).fill(5);
  const driven = new Driven();
  driven.evict(0, { from: 0, read: () => (isThere ? memory : null) });
  driven.come(0);
  expect(driven.load({ needsRows: true })).toBe(0);
  expect(driven.written).toHaveLength(0);
  isThere = true;
  expect(driven.load({ needsRows: true })).toBe(SIZE);
  driven.evict(1);
  driven.come(1);
  memory.fill(6);
  expect(driven.written.map(([, { rows }]) => rows && [...rows.chunk])).toEqual([[5, 5, 5, 5], null]);
});

test('a block with rows takes the place of one without, keys and all', () => {
  const driven = new Driven();
  driven.evict(0);
  driven.come(0, 100);
  driven.evict(0);
  expect(driven.copies).toHaveLength(1);
  driven.evict(0, rowsOf(0, 5));
  driven.come(1, 900);
  driven.load({ needsRows: true });
  expect([driven.writes[0]!.blocks[0]!.keys![0], driven.writes[0]!.blocks[0]!.rows!.chunk[0]]).toEqual([900, 5]);
  // One without rows does not take it back.
  driven.evict(0);
  expect(driven.copies).toHaveLength(2);
});

test('what was under way when the workers were lost is void; what was there stays', () => {
  const driven = new Driven();
  driven.evict(0);
  driven.come(0);
  driven.evict(1);
  driven.load();
  expect(driven.tier.isUnderWay({ load: driven.writes[0]?.load ?? ({ loadId: 0 } as never), blocks: [] })).toBe(false);
  driven.tier.onWorkersLost();
  driven.come(1);
  expect([driven.writes, driven.ends]).toEqual([[], []]);
  expect(driven.tier.liveCounts()).toMatchObject({ blocks: 1, copies: 0, loads: 0 });
  expect(driven.load()).toBe(SIZE);
  driven.tier.written(driven.writes[0]!);
  driven.tier.written(driven.writes[0]!);
  expect(driven.ends).toHaveLength(1);
});

test('a copy or a write that fails costs its loads, and they are computed again', () => {
  const driven = new Driven();
  driven.evict(0);
  driven.load();
  driven.tier.notRead(driven.copies[0]!);
  expect(driven.ends).toEqual([{ kind: 'recompute' }]);
  expect(driven.load()).toBe(0);
  driven.evict(0);
  driven.come(1);
  driven.load();
  driven.tier.notWritten(driven.writes[0]!);
  expect(driven.ends).toHaveLength(2);
  expect(driven.tier.liveCounts().loads).toBe(0);
});

test('a block of a file is read once for two loads; a file that is not believed is forgotten', () => {
  const found = [0, 1].map((i) => ({ name: String.fromCharCode(0, HASHES[i]!), rowsOffset: i === 0 ? 0 : SIZE }));
  const driven = new Driven({ found });
  expect(driven.load({ needsRows: true })).toBe(SIZE);
  expect(driven.load()).toBe(2 * SIZE);
  expect(driven.reads.map(([entry]) => entry)).toEqual(found);
  const [[, first], [second, lost]] = driven.reads as [[FileEntry, TierBlock], [FileEntry, TierBlock]];
  driven.tier.fileRead(first, new Uint32Array(2 * SIZE), { offset: 0, chunk: new Uint8Array(SIZE) });
  expect(driven.writes).toHaveLength(1);
  driven.tier.fileNotRead(second, lost);
  expect(driven.ends).toEqual([{ kind: 'recompute' }]);
  expect(driven.removed).toEqual([second]);
  expect(driven.load()).toBe(SIZE);
});

test('a reset forgets memory, files and what is under way', () => {
  const driven = new Driven();
  driven.evict(0);
  driven.come(0);
  driven.files.written(driven.written[0]![0]);
  driven.evict(1);
  driven.tier.onCacheReset();
  driven.come(1);
  expect(driven.tier.liveCounts()).toEqual({ blocks: 0, copies: 0, loads: 0, files: 0 });
  expect(driven.removed).toHaveLength(1);
  expect(driven.load()).toBe(0);
});
