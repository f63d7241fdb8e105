// The parts of which `deltas` builds a request's rows, each against the obvious model: a set of positions, and an array
// of rows.

import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { BlockRows } from '../../src/capture/deltas/prefix-rows/block-rows.ts';
import { RowAccumulator } from '../../src/capture/deltas/prefix-rows/row-accumulator.ts';
import { RowRun } from '../../src/capture/deltas/prefix-rows/row-run.ts';
import { TableRows } from '../../src/capture/deltas/prefix-rows/table-rows.ts';
import { PositionRanges } from '../../src/capture/position-ranges.ts';
import { rowAt, toArray } from '../../src/capture/routed-rows.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';

const shape = rowShape({ ...modelPreset('tiny'), numLayers: 1, topK: 2 });

/** Rows `[value, value]`, one for each value. */
const rowsOf = (values: readonly number[]): Uint8Array => Uint8Array.from(values.flatMap((value) => [value, value]));

describe('PositionRanges', () => {
  test('agrees with a set of positions', () => {
    const range = fc.tuple(fc.nat(40), fc.nat(12)).map(([from, length]) => [from, from + length] as const);
    fc.assert(
      fc.property(fc.array(range, { maxLength: 12 }), range, (added, [from, to]) => {
        const ranges = new PositionRanges();
        const set = new Set<number>();
        for (const [start, end] of added) {
          ranges.add(start, end);
          for (let p = start; p < end; p++) set.add(p);
        }
        const gaps = ranges.gaps(from, to);
        const inGaps = gaps.flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i));
        expect(inGaps).toEqual(Array.from({ length: to - from }, (_, i) => from + i).filter((p) => !set.has(p)));
        // Disjoint and not adjacent: as few ranges as there can be.
        for (let i = 1; i < gaps.length; i++) expect(gaps[i]![0]).toBeGreaterThan(gaps[i - 1]![1]);
      }),
      { numRuns: 300 },
    );
  });
});

describe('RowRun', () => {
  test('takes its rows in order, once each', () => {
    const run = new RowRun(shape, { from: 4, to: 8, first: 5 });
    expect(run.rows(4, 8)).toBe(null);
    expect(() => run.write(4, 1, rowsOf([1]))).toThrow(/rows \[4, 5\) arrived where \[5, 8\) were due/);
    run.write(5, 2, rowsOf([5, 6]));
    expect([run.end, ...run.rows(5, 7)!]).toEqual([7, 5, 5, 6, 6]);
    expect(() => run.write(6, 1, rowsOf([7]))).toThrow(/INVARIANT|invariant/);
    expect(() => run.write(7, 2, rowsOf([7, 8]))).toThrow(/rows \[7, 9\)/);
  });

  test('a copy has memory of its own, and as much of it as it covers', () => {
    const run = new RowRun(shape, { from: 0, to: 8, first: 1 });
    run.write(1, 7, rowsOf([1, 2, 3, 4, 5, 6, 7]));
    const copy = run.copy(0, 4);
    expect([copy.first, copy.end, ...copy.rows(1, 4)!]).toEqual([1, 4, 1, 1, 2, 2, 3, 3]);
    expect([copy.byteLength, copy.rows(1, 4)!.buffer === run.rows(1, 4)!.buffer]).toEqual([
      4 * shape.bytesPerRow,
      false,
    ]);
  });
});

describe('TableRows', () => {
  test('blocks that are filled together share memory, up to 64 KiB of it', () => {
    const [blockSize, numBlocks] = [4, 40_000];
    const table = new TableRows(shape, blockSize, 0);
    table.write(0, numBlocks * blockSize, new Uint8Array(numBlocks * blockSize * shape.entriesPerRow));
    const runs = new Set(table.runs);
    expect(table.runs.length).toBe(numBlocks);
    expect(runs.size).toBe(Math.ceil((numBlocks * blockSize * shape.bytesPerRow) / 65_536));
    for (const run of runs) expect(run!.byteLength).toBeLessThanOrEqual(65_536);
  });
});

describe('BlockRows', () => {
  const BLOCK = 2;
  const command = fc.tuple(fc.constantFrom('attach', 'evict', 'evict', 'evict', 'clear'), fc.nat(11), fc.nat(5));

  test('agrees with a map of blocks to their rows', () => {
    fc.assert(
      fc.property(fc.array(command, { maxLength: 40 }), (commands) => {
        const blocks = new BlockRows(BLOCK);
        const model = new Map<number, number[]>();
        let value = 0;
        for (const [name, block, length] of commands) {
          if (name === 'attach') {
            // A request's blocks, as many as are free, evicted back to front below.
            const free = Array.from({ length: 12 }, (_, id) => id).filter((id) => !model.has(id));
            const ids = free.slice(0, 1 + length);
            const run = new RowRun(shape, { from: 0, to: ids.length * BLOCK, first: 0 });
            const values = Array.from({ length: ids.length * BLOCK }, () => (value = (value + 1) % 251));
            if (ids.length > 0) run.write(0, values.length, rowsOf(values));
            for (const [i, id] of ids.entries()) {
              blocks.attach(id, i, run);
              model.set(id, [i, ...values.slice(i * BLOCK, (i + 1) * BLOCK)]);
            }
          } else if (name === 'evict') {
            const last = Math.max(-1, ...[...model.keys()].filter((id) => id <= block));
            blocks.evict(last === -1 ? block : last);
            model.delete(last);
          } else {
            blocks.clear();
            model.clear();
          }
          for (let id = 0; id < 12; id++) {
            const [i, ...values] = model.get(id) ?? [];
            const rows = i === undefined ? null : blocks.of(id)!.rows(i * BLOCK, (i + 1) * BLOCK);
            expect(i === undefined ? blocks.of(id) : [...rows!]).toEqual(i === undefined ? null : [...rowsOf(values)]);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  test('evicted from the back, as a pool does, blocks pin no more than as much again', () => {
    const blocks = new BlockRows(BLOCK);
    const run = new RowRun(shape, { from: 0, to: 16 * BLOCK, first: 0 });
    for (let i = 0; i < 16; i++) blocks.attach(i, i, run);
    run.write(0, 16 * BLOCK, rowsOf(Array.from({ length: 16 * BLOCK }, (_, p) => p)));
    for (let left = 15; left >= 0; left--) {
      blocks.evict(left);
      const numBytes = [...blocks.runs].reduce((bytes, each) => bytes + each.byteLength, 0);
      expect(numBytes).toBeLessThanOrEqual(2 * left * BLOCK * shape.bytesPerRow);
      if (left > 0) expect([...blocks.of(0)!.rows(0, 2)!]).toEqual([0, 0, 1, 1]);
    }
    expect([...blocks.runs]).toEqual([]);
  });

  test('what is copied is no more than what went, in whatever order blocks are evicted', () => {
    const NUM_BLOCKS = 12;
    const order = fc.shuffledSubarray(
      Array.from({ length: NUM_BLOCKS }, (_, i) => i),
      { minLength: NUM_BLOCKS },
    );
    fc.assert(
      fc.property(order, (evicted) => {
        const blocks = new BlockRows(BLOCK);
        const run = new RowRun(shape, { from: 0, to: NUM_BLOCKS * BLOCK, first: 0 });
        const numRows = NUM_BLOCKS * BLOCK;
        const values = Array.from({ length: numRows }, (_, i) => i);
        run.write(0, numRows, rowsOf(values));
        for (let i = 0; i < NUM_BLOCKS; i++) blocks.attach(i + 1, i, run);
        const copy = vi.spyOn(RowRun.prototype, 'copy');
        try {
          for (const [count, i] of evicted.entries()) {
            blocks.evict(i + 1);
            const numCopied = copy.mock.calls.reduce((sum, [from, to]) => sum + to - from, 0);
            expect(numCopied).toBeLessThanOrEqual((count + 1) * BLOCK);
            for (const left of evicted.slice(count + 1)) {
              const rows = blocks.of(left + 1)!.rows(left * BLOCK, (left + 1) * BLOCK)!;
              expect(rows[0]).toBe(left * BLOCK);
            }
          }
        } finally {
          copy.mockRestore();
        }
      }),
    );
  });

  test('a run whose rows are under way is not copied: they come to it', () => {
    const blocks = new BlockRows(BLOCK);
    const run = new RowRun(shape, { from: 0, to: 2 * BLOCK, first: 0 });
    blocks.attach(1, 0, run);
    blocks.attach(2, 1, run);
    blocks.evict(2);
    run.write(0, 4, rowsOf([1, 2, 3, 4]));
    expect([...blocks.of(1)!.rows(0, 2)!]).toEqual([1, 1, 2, 2]);
  });
});

describe('RowAccumulator', () => {
  /**
   * A stay in the pool: chunks computed one after the other from a hit prefix on, and whether it ends in a reset that
   * drops the last chunk.
   */
  const stay = fc.record({
    hitBlocks: fc.nat(3),
    knownHits: fc.boolean(),
    chunks: fc.array(fc.integer({ min: 1, max: 7 }), { maxLength: 5 }),
    isDropped: fc.boolean(),
  });

  test('agrees with an array of rows, over any number of preemptions', () => {
    const PAGE = 4;
    const LENGTH = 24;
    fc.assert(
      fc.property(fc.array(stay, { maxLength: 4 }), fc.nat(9), fc.nat(LENGTH), (stays, start, length) => {
        const end = Math.max(start, length);
        const accumulator = new RowAccumulator(shape, PAGE, start);
        // The value that each position may have, per block the newest stay that knows most.
        const candidates: Set<number>[] = Array.from({ length: LENGTH }, () => new Set());
        const newest: (number | null)[] = Array.from({ length: LENGTH }, () => null);
        let value = 0;
        for (const { hitBlocks, knownHits, chunks, isDropped } of stays) {
          const table = accumulator.table(LENGTH);
          table.firstStepId = 0;
          for (let i = 0; i < hitBlocks; i++) {
            const run = new RowRun(shape, { from: i * PAGE, to: (i + 1) * PAGE, first: i * PAGE });
            const values = Array.from({ length: PAGE }, () => (value = (value + 1) % 251));
            run.write(i * PAGE, PAGE, rowsOf(values));
            table.hit(i, knownHits && (i + 1) * PAGE > start ? run : null);
            if (!knownHits) continue;
            for (const [row, v] of values.entries()) candidates[i * PAGE + row]!.add((newest[i * PAGE + row] = v));
          }
          let at = hitBlocks * PAGE;
          for (const [c, size] of chunks.entries()) {
            const to = Math.min(LENGTH, at + size);
            const from = Math.max(at, start);
            const values = Array.from({ length: Math.max(0, to - from) }, () => (value = (value + 1) % 251));
            if (values.length > 0) table.write(from, values.length, rowsOf(values));
            const isLost = isDropped && c === chunks.length - 1 && c > 0;
            if (isLost && values.length > 0) table.disown(from);
            else {
              for (const [i, v] of values.entries()) candidates[from + i]!.add((newest[from + i] = v));
              if (values.length > 0) table.hasOutput = true;
            }
            at = to;
          }
          accumulator.closeTable();
        }
        const rows = accumulator.take(start, end);
        expect([rows.start, rows.count]).toEqual([start, end - start]);
        for (let p = start; p < end; p++) {
          const row = rowAt(rows, p);
          // Nothing known may be reported missing unless a later stay's block took over; nothing unknown may be
          // delivered.
          if (row !== null) expect(candidates[p]!.has(row[0]!)).toBe(true);
          else if (stays.length <= 1) expect(newest[p]).toBe(null);
          if (stays.length === 1) expect(row?.[0] ?? null).toBe(newest[p]);
        }
        for (const [from, to] of rows.missing) for (let p = from; p < to; p++) expect(rowAt(rows, p)).toBe(null);
      }),
      { numRuns: 500 },
    );
  });

  test('after a preemption the earlier rows count until a block is as full again, then the new ones do', () => {
    const accumulator = new RowAccumulator(shape, 4, 0);
    const earlier = accumulator.table(9);
    earlier.firstStepId = 0;
    earlier.write(0, 7, rowsOf([1, 2, 3, 4, 5, 6, 7]));
    accumulator.closeTable();
    const values = (): number[] => [...toArray(accumulator.take(0, 8), 0xff)].filter((_, i) => i % 2 === 0);
    expect(values()).toEqual([1, 2, 3, 4, 5, 6, 7, 0xff]);
    const table = accumulator.table(9);
    table.firstStepId = 0;
    table.write(0, 6, rowsOf([11, 12, 13, 14, 15, 16]));
    expect(values()).toEqual([11, 12, 13, 14, 5, 6, 7, 0xff]);
    table.write(6, 2, rowsOf([17, 18]));
    expect(values()).toEqual([11, 12, 13, 14, 15, 16, 17, 18]);
  });

  test('rows of KV that the request gives back before any step reads it are not its own', () => {
    for (const comesBack of [false, true]) {
      const accumulator = new RowAccumulator(shape, 4, 0);
      accumulator.table(9).write(0, 4, rowsOf([1, 2, 3, 4]));
      accumulator.closeTable();
      // A step is to compute the rows anew.
      if (comesBack) accumulator.table(9).firstStepId = 0;
      expect(accumulator.take(0, 4).missing).toEqual([[0, 4]]);
    }
  });
});
