/**
 * The keeping side of a hand-over: blocks are given back exactly once, when they were released or their lease is over
 * and no peer reads them (L7); only what was asked for is handed out, and only while it is there (L4, L9).
 */

import { beforeEach, describe, expect, test } from 'vitest';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import type { PdRows } from '../../src/handover/handed-rows.ts';
import { KvKeeper, type KvRead } from '../../src/handover/kv-keeper.ts';
import type { KvQuestion, KvReply } from '../../src/handover/kv-message.ts';
import { LEASE_MS, options, PROMPT, rowsOf } from './hand-over.ts';

const KEYS = new Uint32Array(16);
const ID = 'r/7';

let keeper: KvKeeper;
let wakeUps: number[];
let givenBack: number[];
/** Reads that wait for `prepared`, with the rows to be summed up, and those that wait for `keysRead`. */
let preparing: [KvRead, RoutedRows | null][];
let reading: [KvRead, readonly number[]][];
let replies: KvReply[];

const question: KvQuestion = {
  engineId: 'e',
  requestId: ID,
  from: 4,
  to: 10,
  rowsStart: null,
  shape: options.shape,
  tokens: options.tokenDigest(PROMPT, 10),
};

function start(rows: PdRows = 'with-kv'): void {
  [wakeUps, givenBack, preparing, reading, replies] = [[], [], [], [], []];
  keeper = new KvKeeper(
    { ...options, rows },
    {
      wakeAt: (time) => wakeUps.push(time),
      prepare: (read, carried) => preparing.push([read, carried]),
      readKv: (read, blockIds) => reading.push([read, blockIds]),
      giveBack: (requestIndex) => givenBack.push(requestIndex),
    },
  );
}

/** A prompt of ten tokens and an output of one, which ended at `now`. */
function keep(index: number = 7, now: number = 0, rows: RoutedRows | null = rowsOf(0, 10)): void {
  keeper.announce('r', PROMPT);
  const request = { requestId: 'r', index, numTokens: 11, numPromptTokens: 10, blockIds: [3, 1, 2, 9] };
  expect(keeper.keepsBlocks(request, now)).toBe(true);
  keeper.ended('r', rows);
}

const ask = (changes: Partial<KvQuestion> = {}): void =>
  keeper.read({ ...question, ...changes }, (reply) => replies.push(reply));
const prepare = (digest: string | null = null): void => keeper.prepared(preparing.shift()![0], digest);
const endRead = (): void => keeper.keysRead(reading.shift()![0], KEYS);

beforeEach(() => {
  start();
  keep();
});

describe('blocks', () => {
  test('are given back when they are released, once, and only by the name of this engine', () => {
    keeper.release('another', ID);
    expect(givenBack).toEqual([]);
    keeper.release('e', ID);
    keeper.release('e', ID);
    keeper.expire(2 * LEASE_MS);
    expect([givenBack, keeper.numExpired]).toEqual([[7], 0]);
    expect(keeper.liveCounts()).toEqual({ requests: 0, kept: 0, reads: 0 });
  });

  test('are given back when their lease is over, and not before', () => {
    expect(wakeUps).toEqual([LEASE_MS]);
    keeper.expire(LEASE_MS - 1);
    expect(givenBack).toEqual([]);
    keeper.expire(LEASE_MS);
    expect([givenBack, keeper.numExpired]).toEqual([[7], 1]);
  });

  test('of several requests: one wake-up call is out at a time, for the lease that ends first', () => {
    keep(8, 10);
    keep(9, 20);
    expect(wakeUps).toEqual([LEASE_MS]);
    keeper.expire(LEASE_MS);
    expect(wakeUps).toEqual([LEASE_MS, LEASE_MS + 10]);
    keeper.release('e', 'r/8');
    keeper.expire(LEASE_MS + 10);
    expect(wakeUps).toEqual([LEASE_MS, LEASE_MS + 10, LEASE_MS + 20]);
    keeper.expire(LEASE_MS + 20);
    expect([givenBack, keeper.numExpired, wakeUps.length]).toEqual([[7, 8, 9], 2, 3]);
  });

  test.each(['released', 'expired'] as const)('that are %s stay until their last reader is done', (how) => {
    ask();
    ask();
    prepare();
    if (how === 'released') keeper.release('e', ID);
    else keeper.expire(LEASE_MS);
    prepare();
    expect(givenBack).toEqual([]);
    endRead();
    expect(givenBack).toEqual([]);
    keeper.notRead(reading.shift()![0], 'no device');
    expect(givenBack).toEqual([7]);
    expect(replies).toEqual([{ keys: KEYS, rows: null }, { refusal: 'no device' }]);
  });

  test('that are lost with their device are not given back, also not by a read that ends later', () => {
    ask();
    prepare();
    keeper.release('e', ID);
    keeper.onWorkersLost();
    endRead();
    keeper.release('e', ID);
    keeper.expire(LEASE_MS);
    expect([givenBack, keeper.liveCounts().kept]).toEqual([[], 0]);
    expect(replies).toEqual([{ refusal: 'the KV was lost with its workers' }]);
  });

  test('of new workers are not read for a question about those that were lost', () => {
    ask({ rowsDigest: 'x' });
    keeper.onWorkersLost();
    prepare('x');
    expect(reading).toEqual([]);
    expect(replies).toHaveLength(1);
  });
});

describe('what is kept', () => {
  test('is what was announced, without the last sampled token', () => {
    const request = { requestId: 's', index: 8, numTokens: 9, numPromptTokens: 9, blockIds: [5, 6, 7] };
    expect(keeper.keepsBlocks(request, 0)).toBe(false);
    expect(keeper.ended('s', null)).toBeNull();
    keeper.announce('s', PROMPT);
    expect(keeper.keepsBlocks(request, 5)).toBe(true);
    expect(keeper.ended('s', rowsOf(0, 9))).toMatchObject({
      engineId: 'e',
      requestId: 's/8',
      numTokens: 8,
      blockIds: [5, 6],
      expiresAt: 5 + LEASE_MS,
      hasRows: true,
      carried: null,
    });
  });

  test('by one id twice is both times there', () => {
    keep(8);
    expect([keeper.find(ID)?.requestIndex, keeper.find('r/8')?.requestIndex]).toEqual([7, 8]);
    keeper.release('e', ID);
    expect([givenBack, keeper.find(ID), keeper.find('r/8')?.requestIndex]).toEqual([[7], null, 8]);
  });

  test('has no offer if its lease was over, or its workers were lost, before it ended', () => {
    for (const end of [() => keeper.expire(LEASE_MS), () => keeper.onWorkersLost()]) {
      keeper.announce('r', PROMPT);
      keeper.keepsBlocks({ requestId: 'r', index: 8, numTokens: 11, numPromptTokens: 10, blockIds: [1, 2, 3] }, 0);
      end();
      expect(keeper.ended('r', rowsOf(0, 10))).toBeNull();
    }
  });

  test.each<readonly [PdRows, boolean, boolean]>([
    ['with-kv', true, false],
    ['carry', false, true],
    ['splice', false, false],
  ])('by %s offers its rows that way, and no other; with a gap, no way', (way, hasRows, isCarried) => {
    for (const gap of [false, true]) {
      start(way);
      keeper.announce('r', PROMPT);
      keeper.keepsBlocks({ requestId: 'r', index: 7, numTokens: 12, numPromptTokens: 10, blockIds: [1, 2, 3] }, 0);
      const all = rowsOf(0, 11);
      const offer = keeper.ended('r', gap ? { ...all, missing: [[9, 10]] } : all)!;
      expect(offer.hasRows).toBe(hasRows && !gap);
      expect(offer.carried).toEqual(isCarried && !gap ? { ...all, count: 10 } : null);
    }
  });
});

describe('a question', () => {
  test('gets the blocks of its range, and the rows from where they are wanted', () => {
    ask({ rowsStart: 5 });
    prepare();
    expect(reading[0]![1]).toEqual([1, 2]);
    endRead();
    expect(replies).toEqual([{ keys: KEYS, rows: { ...rowsOf(0, 10), start: 5, count: 5 } }]);
  });

  test('gets no rows if one of them is not there', () => {
    for (const rows of [null, rowsOf(6, 10), rowsOf(0, 9)]) {
      start();
      keep(7, 0, rows);
      ask({ rowsStart: 5 });
      prepare();
      endRead();
      expect(replies).toEqual([{ keys: KEYS, rows: null }]);
    }
  });

  test.each<readonly [string, Partial<KvQuestion>, RegExp]>([
    ['of an engine that was here before', { engineId: 'f' }, /engine f is not here/],
    ['of another shape', { shape: 'x' }, /the KV here is of a shape/],
    ['of an unknown request', { requestId: 'r' }, /no KV is kept for request r/],
    ['behind the kept tokens', { to: 11 }, /is not within 10 tokens/],
    ['from the middle of a block', { from: 5 }, /is not within 10 tokens/],
    ['from before the first token', { from: -4 }, /is not within 10 tokens/],
    ['of no token', { to: 4 }, /is not within 10 tokens/],
    ['of half a token', { to: 9.5 }, /is not within 10 tokens/],
    ['for rows from half a token on', { rowsStart: 5.5 }, /rows cannot start at 5.5/],
    ['of other tokens', { tokens: 'x' }, /has other tokens here/],
  ])('%s is refused at once', (_, wrong, reason) => {
    ask(wrong);
    expect(replies).toEqual([{ refusal: expect.stringMatching(reason) as string }]);
    expect([preparing, keeper.liveCounts().reads]).toEqual([[], 0]);
  });

  test('of what was released is refused, even while others still read it', () => {
    ask();
    keeper.release('e', ID);
    ask();
    expect(replies).toEqual([{ refusal: expect.stringMatching(/no KV is kept/) as string }]);
    expect(preparing).toHaveLength(1);
  });

  test('with a digest of rows is answered only if it is that of the rows here', () => {
    ask({ rowsDigest: 'right' });
    ask({ rowsDigest: 'wrong' });
    expect(preparing.map(([, rows]) => rows)).toEqual([rowsOf(0, 10), rowsOf(0, 10)]);
    prepare('right');
    prepare('right');
    expect(reading).toHaveLength(1);
    expect(replies).toEqual([{ refusal: 'the rows that were carried are not those of request r/7' }]);
    keeper.release('e', ID);
    endRead();
    expect(givenBack).toEqual([7]);
  });

  test('with a digest of rows that are not here is refused', () => {
    keep(8, 0, null);
    ask({ requestId: 'r/8', rowsDigest: 'x' });
    expect(preparing[0]![1]).toBeNull();
    prepare(null);
    expect(replies).toEqual([{ refusal: 'the rows that were carried are not those of request r/8' }]);
  });
});
