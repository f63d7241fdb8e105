/**
 * Which rows of what a router saw belong to a rank: every layout in a table, and rows made by a model of each dispatch
 * (L2, L3, L4).
 */

import { describe, expect, test } from 'vitest';
import { rowsOfRank, SINGLE_RANK, type HookRanks, type HookRows } from '../../src/worker/pipeline/hook-layout.ts';

type Case = Readonly<{
  name: string;
  ranks: Partial<HookRanks>;
  /** Rows that each data-parallel rank runs; real tokens of this one (absent: all of its rows). */
  rowsPerRank: readonly number[];
  numTokens?: number;
  numRowsSeen: number;
  expected: Pick<HookRows, 'kind' | 'firstRow'> | 'error';
}>;

const slice = (firstRow: number): Case['expected'] => ({ kind: 'slice', firstRow });
const gather: Case['expected'] = { kind: 'all-gather', firstRow: 0 };
const dp = (rank: number, size: number): Partial<HookRanks> => ({ dataParallelRank: rank, dataParallelSize: size });
const sp = (tp: number): Partial<HookRanks> => ({ tensorParallelSize: tp, isSequenceParallel: true });

const cases: readonly Case[] = [
  { name: 'alone', ranks: {}, rowsPerRank: [7], numRowsSeen: 7, expected: slice(0) },
  { name: 'alone, padded graph', ranks: {}, rowsPerRank: [8], numTokens: 5, numRowsSeen: 8, expected: slice(0) },
  { name: 'alone, no tokens', ranks: {}, rowsPerRank: [0], numRowsSeen: 0, expected: slice(0) },
  { name: 'alone, too few rows', ranks: {}, rowsPerRank: [7], numRowsSeen: 6, expected: 'error' },
  { name: 'alone, too many rows', ranks: {}, rowsPerRank: [7], numRowsSeen: 8, expected: 'error' },
  {
    name: 'alone, more tokens than rows',
    ranks: {},
    rowsPerRank: [4],
    numTokens: 5,
    numRowsSeen: 4,
    expected: 'error',
  },
  { name: 'tensor parallel', ranks: { tensorParallelSize: 4 }, rowsPerRank: [9], numRowsSeen: 9, expected: slice(0) },
  { name: 'naive, first rank', ranks: dp(0, 3), rowsPerRank: [5, 2, 9], numRowsSeen: 16, expected: slice(0) },
  { name: 'naive, second rank', ranks: dp(1, 3), rowsPerRank: [5, 2, 9], numRowsSeen: 16, expected: slice(5) },
  { name: 'naive, last rank', ranks: dp(2, 3), rowsPerRank: [5, 2, 9], numRowsSeen: 16, expected: slice(7) },
  { name: 'naive, padded', ranks: dp(1, 2), rowsPerRank: [8, 8], numTokens: 3, numRowsSeen: 16, expected: slice(8) },
  { name: 'naive, idle rank', ranks: dp(1, 2), rowsPerRank: [5, 0], numRowsSeen: 5, expected: slice(5) },
  { name: 'modular', ranks: dp(1, 3), rowsPerRank: [5, 2, 9], numRowsSeen: 2, expected: slice(0) },
  { name: 'modular, padded', ranks: dp(1, 2), rowsPerRank: [8, 8], numTokens: 3, numRowsSeen: 8, expected: slice(0) },
  { name: 'rows of another rank', ranks: dp(1, 3), rowsPerRank: [5, 2, 9], numRowsSeen: 9, expected: 'error' },
  { name: 'a rank unheard of', ranks: dp(1, 2), rowsPerRank: [5], numRowsSeen: 5, expected: 'error' },
  { name: 'sequence parallel, one shard', ranks: sp(4), rowsPerRank: [10], numRowsSeen: 3, expected: gather },
  { name: 'sequence parallel, one token', ranks: sp(4), rowsPerRank: [1], numRowsSeen: 1, expected: gather },
  { name: 'sequence parallel, all shards', ranks: sp(4), rowsPerRank: [10], numRowsSeen: 12, expected: slice(0) },
  { name: 'sequence parallel, unpadded', ranks: sp(4), rowsPerRank: [10], numRowsSeen: 10, expected: 'error' },
  {
    name: 'naive and sequence parallel',
    ranks: { ...dp(2, 3), ...sp(4) },
    rowsPerRank: [5, 2, 9],
    numRowsSeen: 8 + 4 + 12,
    expected: slice(12),
  },
  {
    name: 'modular and sequence parallel',
    ranks: { ...dp(2, 3), ...sp(4) },
    rowsPerRank: [5, 2, 9],
    numRowsSeen: 3,
    expected: gather,
  },
  {
    name: 'another rank’s shard',
    ranks: { ...dp(2, 3), ...sp(4) },
    rowsPerRank: [5, 2, 9],
    numRowsSeen: 2,
    expected: 'error',
  },
];

/** Rows by name, `rank:token`, as a naive dispatch lays them out; padding is `-`. */
const dispatched = (realTokens: readonly number[], tp: number): string[] =>
  realTokens.flatMap((count, rank) => {
    const padded = Math.ceil(count / tp) * tp;
    return Array.from({ length: padded }, (_, token) => (token < count ? `${rank}:${token}` : '-'));
  });

describe('rows of a rank', () => {
  test.each(cases)('$name', ({ ranks, rowsPerRank, numRowsSeen, expected, ...rest }) => {
    const all = { ...SINGLE_RANK, ...ranks };
    const numTokens = rest.numTokens ?? rowsPerRank[all.dataParallelRank] ?? 0;
    const rows = () => rowsOfRank(all, { numRowsSeen, rowsPerRank, numTokens });
    if (expected === 'error') expect(rows).toThrow(/the router saw \d+ rows .* no known layout of rows/);
    else expect(rows()).toEqual({ ...expected, numTokens });
  });

  test.each([1, 2, 3, 8])('every rank finds its own rows and no padding, tensor parallel %i', (tp) => {
    for (const realTokens of [[1], [4, 4], [5, 2, 9], [0, 3, 1, 16]]) {
      const seen = dispatched(realTokens, tp);
      for (const [rank, numTokens] of realTokens.entries()) {
        const ranks = { ...SINGLE_RANK, ...dp(rank, realTokens.length), ...sp(tp) };
        const { kind, firstRow } = rowsOfRank(ranks, { numRowsSeen: seen.length, rowsPerRank: realTokens, numTokens });
        const own = Array.from({ length: numTokens }, (_, token) => `${rank}:${token}`);
        if (kind === 'slice') expect(seen.slice(firstRow, firstRow + numTokens)).toEqual(own);
        else expect(numTokens).toBe(0);
      }
    }
  });
});
