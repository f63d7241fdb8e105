// The parts of which `deltas` builds a request's rows, each against the obvious model: a set of positions, and an array of rows.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BlockRows } from '../../src/capture/deltas/block-rows.ts';
import { RowAccumulator } from '../../src/capture/deltas/row-accumulator.ts';
import { RowPage } from '../../src/capture/deltas/row-page.ts';
import { PositionRanges } from '../../src/capture/position-ranges.ts';
import { rowAt, toArray } from '../../src/capture/routed-rows.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import { modelPreset } from '../../src/kernels/model-presets.ts';

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
        for (let p = 0; p < 60; p++) expect(ranges.has(p)).toBe(set.has(p));
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

describe('RowPage', () => {
  test('takes its rows in order, once each', () => {
    const page = new RowPage(shape, 4, 1);
    expect(() => page.write(0, 1, rowsOf([1]), 0)).toThrow(/rows \[0, 1\) of a block arrived where \[1, 4\) were due/);
    page.write(1, 2, rowsOf([9, 5, 6]), 1);
    expect([page.end, ...page.rows!]).toEqual([3, 0, 0, 5, 5, 6, 6, 0, 0]);
    expect(() => page.write(2, 1, rowsOf([7]), 0)).toThrow(/INVARIANT|invariant/);
    expect(() => page.write(3, 2, rowsOf([7, 8]), 0)).toThrow(/rows \[3, 5\)/);
  });

  test('a lent array is left behind by the next write; a full page is lent as it is', () => {
    const page = new RowPage(shape, 2, 0);
    expect(page.lend()).toBe(null);
    page.write(0, 1, rowsOf([3]), 0);
    const lent = page.lend()!;
    page.write(1, 1, rowsOf([4]), 0);
    expect([...lent]).toEqual([3, 3, 0, 0]);
    expect([...page.rows!]).toEqual([3, 3, 4, 4]);
    expect(page.lend()).toBe(page.lend());
  });
});

describe('BlockRows', () => {
  test('agrees with a map of blocks', () => {
    const command = fc.tuple(fc.constantFrom('attach', 'attach', 'evict', 'clear'), fc.nat(5));
    fc.assert(
      fc.property(fc.array(command, { maxLength: 30 }), (commands) => {
        const blocks = new BlockRows();
        const model = new Map<number, RowPage>();
        for (const [name, block] of commands) {
          if (name === 'attach') {
            const page = new RowPage(shape, 2, 0);
            if (block % 2 === 0) page.write(0, 1, rowsOf([block]), 0);
            blocks.attach(block, page);
            model.set(block, page);
          } else if (name === 'evict') {
            blocks.evict(block);
            model.delete(block);
          } else {
            blocks.clear();
            model.clear();
          }
          for (let id = 0; id < 6; id++) expect(blocks.of(id)).toBe(model.get(id) ?? null);
          expect(blocks.numPages).toBe(model.size);
          expect(blocks.byteLength).toBe([...model.keys()].filter((id) => id % 2 === 0).length * 2 * shape.bytesPerRow);
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe('RowAccumulator', () => {
  /** A stay in the pool: chunks computed one after the other from a hit prefix on, and whether it ends in a reset that drops the last chunk. */
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
        // The value that each position may have, per page the newest stay that knows most.
        const candidates: Set<number>[] = Array.from({ length: LENGTH }, () => new Set());
        const newest: (number | null)[] = Array.from({ length: LENGTH }, () => null);
        let value = 0;
        for (const { hitBlocks, knownHits, chunks, isDropped } of stays) {
          const table = accumulator.table(LENGTH);
          for (let i = 0; i < hitBlocks; i++) {
            const page = new RowPage(shape, PAGE, 0);
            const values = Array.from({ length: PAGE }, () => (value = (value + 1) % 251));
            page.write(0, PAGE, rowsOf(values), 0);
            table.hit(i, knownHits && (i + 1) * PAGE > start ? page : null);
            if (!knownHits) continue;
            for (const [row, v] of values.entries()) candidates[i * PAGE + row]!.add((newest[i * PAGE + row] = v));
          }
          let at = hitBlocks * PAGE;
          for (const [c, size] of chunks.entries()) {
            const to = Math.min(LENGTH, at + size);
            const from = Math.max(at, start);
            const values = Array.from({ length: Math.max(0, to - from) }, () => (value = (value + 1) % 251));
            if (values.length > 0) table.write(from, values.length, rowsOf(values), 0);
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
          // Nothing known may be reported missing unless a later stay's page took over; nothing unknown may be delivered.
          if (row !== null) expect(candidates[p]!.has(row[0]!)).toBe(true);
          else if (stays.length <= 1) expect(newest[p]).toBe(null);
          if (stays.length === 1) expect(row?.[0] ?? null).toBe(newest[p]);
        }
        for (const [from, to] of rows.missing) for (let p = from; p < to; p++) expect(rowAt(rows, p)).toBe(null);
      }),
      { numRuns: 500 },
    );
  });

  test('after a preemption the earlier rows count until a page is as full again, then the new ones do', () => {
    const accumulator = new RowAccumulator(shape, 4, 0);
    accumulator.table(9).write(0, 7, rowsOf([1, 2, 3, 4, 5, 6, 7]), 0);
    accumulator.closeTable();
    const values = (): number[] => [...toArray(accumulator.take(0, 8), 0xff)].filter((_, i) => i % 2 === 0);
    expect(values()).toEqual([1, 2, 3, 4, 5, 6, 7, 0xff]);
    const table = accumulator.table(9);
    table.write(0, 6, rowsOf([11, 12, 13, 14, 15, 16]), 0);
    expect(values()).toEqual([11, 12, 13, 14, 5, 6, 7, 0xff]);
    table.write(6, 2, rowsOf([17, 18]), 0);
    expect(values()).toEqual([11, 12, 13, 14, 15, 16, 17, 18]);
  });
});
