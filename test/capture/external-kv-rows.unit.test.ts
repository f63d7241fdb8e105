/**
 * The engine half of `deltas` with rows of prefix hits: rows that come with KV from elsewhere, and rows that do not.
 */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { routedRows } from '../../src/capture/routed-rows.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import { BLOCK_SIZE, missing, model, rowsOf, SchedulerCalls, type TestRequest } from './scheduler-calls.ts';

/** The rows of `[start, start + values.length)` as another engine hands them over; negative = missing. */
function handedOver(start: number, values: readonly number[], rowsPerChunk = 3): RoutedRows {
  const end = start + values.length;
  const chunks: (Uint8Array | null)[] = [];
  for (let from = 0; from < end; from += rowsPerChunk) {
    const chunk = Array.from({ length: rowsPerChunk }, (_, i) => values[from + i - start] ?? -1);
    chunks.push(chunk.every((value) => value < 0) ? null : Uint8Array.from(chunk));
  }
  const missingRanges = values.flatMap((value, i) => (value < 0 ? [[start + i, start + i + 1] as const] : []));
  return routedRows(rowShape(model), start, end, { rowsPerChunk, chunks, missing: missingRanges });
}

/** A request of 13 tokens to whose blocks 1, 2 and 3 the KV of `[0, 11)` came. */
function load(rows: RoutedRows | null, promptStart = 0): { calls: SchedulerCalls; a: TestRequest } {
  const calls = new SchedulerCalls('share');
  const a = calls.request(13, promptStart);
  calls.admit(a, [1, 2, 3, 4]);
  a.numCachedBlocks = 2;
  calls.half.onExternalKv!(a, 0, 11, rows);
  a.numComputedTokens = 11;
  calls.arrive(calls.schedule([a, 2]), [a]);
  return { calls, a };
}

describe('KV from elsewhere', () => {
  const own = rowsOf(0, 11, 12);

  test('its rows are the request’s, and go to a request that hits its blocks', () => {
    const { calls, a } = load(handedOver(0, [9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8]));
    expect(calls.end(a)).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8, ...own]);
    const b = calls.request(9);
    calls.admit(b, [1, 2, 5], 2);
    calls.arrive(calls.schedule([b, 1]), [b]);
    expect(calls.end(b)).toEqual([9, 8, 7, 6, 5, 4, 3, 2]);
    calls.expectNothingHeld();
  });

  test('rows that did not come are missing, those before them in their block too; none stands for another', () => {
    const { calls, a } = load(handedOver(1, [8, 7, 6, 5, 4, -1, 2, 1, -1]));
    expect(calls.end(a)).toEqual([-1, 8, 7, 6, -1, -1, -1, 2, ...missing(3), ...own]);
    expect(calls.usable(calls.request(9, 1), [1])).toBe(1);
  });

  test('no rows: all of them are missing, and the request’s own follow', () => {
    const { calls, a } = load(null);
    expect(calls.end(a)).toEqual([...missing(11), ...own]);
    expect(calls.half.liveCounts().cachedBytes).toBe(BLOCK_SIZE);
  });

  test('given back before a pass was to read it: its rows are not the request’s; a hit of its blocks has them', () => {
    const calls = new SchedulerCalls();
    const a = calls.request(12);
    calls.admit(a, [1, 2, 3]);
    a.numCachedBlocks = 2;
    calls.half.onExternalKv!(a, 0, 11, handedOver(0, [9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8]));
    calls.preempt(a);
    expect(calls.end(a)).toEqual(missing(11));
    const b = calls.request(9);
    calls.admit(b, [1, 2, 5], 2);
    calls.arrive(calls.schedule([b, 1]), [b]);
    expect(calls.end(b)).toEqual([9, 8, 7, 6, 5, 4, 3, 2]);
  });

  test('lost after a pass has read it, and computed again up to inside a block: rows of both, and the gap', () => {
    const { calls, a } = load(null);
    calls.preempt(a);
    calls.admit(a, [4, 5, 6, 7]);
    const again = calls.schedule([a, 9]);
    calls.arrive(again, [a]);
    expect(calls.end(a)).toEqual([...rowsOf(again.stepId, 0, 9), ...missing(2), ...own]);
  });

  test('rows before the prompt start are not looked at', () => {
    const { calls, a } = load(handedOver(4, [5, 4, 3, 2, 1, 9, 8]), 6);
    expect(calls.end(a)).toEqual([3, 2, 1, 9, 8, ...own]);
  });

  test('any rows, any gaps: every row is the one handed over, or missing', () => {
    const values = fc.array(fc.integer({ min: -1, max: 40 }), { minLength: 1, maxLength: 14 });
    fc.assert(
      fc.property(
        fc.nat(6),
        values,
        fc.nat(11),
        fc.integer({ min: 1, max: 5 }),
        (start, all, promptStart, perChunk) => {
          const { calls, a } = load(handedOver(start, all, perChunk), promptStart);
          const rows = calls.end(a);
          for (let p = promptStart; p < 11; p++) {
            const handed = all[p - start] ?? -1;
            const got = rows[p - promptStart]!;
            if (got !== -1) expect(got).toBe(handed);
            // A row is given up only with a gap behind it in its block.
            const end = Math.min(11, (Math.floor(p / BLOCK_SIZE) + 1) * BLOCK_SIZE);
            const isWhole = Array.from({ length: end - p }, (_, i) => all[p + i - start] ?? -1).every(
              (value) => value >= 0,
            );
            if (isWhole) expect(got).toBe(handed);
          }
          expect(rows.slice(11 - promptStart)).toEqual(own);
        },
      ),
      { numRuns: 300 },
    );
  });
});
