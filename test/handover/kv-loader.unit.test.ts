/**
 * The loading side of a hand-over: each load is finished exactly once, or never if its workers were lost (L8); keys are
 * written only to blocks that are still the load's, and rows are believed only if they are those that were asked for
 * (L4, L9).
 */

import { beforeEach, describe, expect, test } from 'vitest';
import type { KvLoad, KvLoadOutcome } from '../../src/contract/kv-connector.ts';
import type { PdRows } from '../../src/handover/handed-rows.ts';
import { KvLoader, type KvFetch } from '../../src/handover/kv-loader.ts';
import type { HandoverOptions, KvAnswer, RemoteKv } from '../../src/handover/kv-message.ts';
import { LOAD_MS, options, PROMPT, rowsOf } from './hand-over.ts';

type Fetch = KvFetch<RemoteKv>;

const KEYS = new Uint32Array(2 * 4 * 2);
const remote: RemoteKv = { engineId: 'p', requestId: 'r/7', numTokens: 10, hasRows: true, carried: null };

let loader: KvLoader<RemoteKv>;
let wakeUps: number[];
let asked: Fetch[];
let cancelled: Fetch[];
let released: RemoteKv[];
let writes: [KvLoad, Uint32Array][];
let finished: [loadId: number, outcome: KvLoadOutcome, problem: string | null][];

function start(changes: Partial<HandoverOptions> = {}): void {
  [wakeUps, asked, cancelled, released, writes, finished] = [[], [], [], [], [], []];
  loader = new KvLoader(
    { ...options, ...changes },
    {
      wakeAt: (time) => wakeUps.push(time),
      ask: (fetch) => asked.push(fetch),
      cancel: (fetch) => cancelled.push(fetch),
      release: (to) => released.push(to),
      writeKv: (load, keys) => writes.push([load, keys]),
      finishLoad: ({ loadId }, outcome, problem) => finished.push([loadId, outcome, problem]),
    },
  );
}

const loadOf = (loadId: number, requestId: string = 'd'): KvLoad => {
  return { loadId, requestId, from: 4, to: 10, blockIds: [10 * loadId, 10 * loadId + 1] };
};
const announce = (rowsStart: number | null, changes: Partial<RemoteKv> = {}, requestIds: string[] = ['d']): void =>
  loader.announce(requestIds, { remote: { ...remote, ...changes }, promptTokenIds: PROMPT, rowsStart });
const answer = (changes: Partial<KvAnswer> = {}, isIntact: boolean = true): void =>
  loader.answered(asked[0]!, { keys: KEYS, rows: null, ...changes }, isIntact);

beforeEach(() => start());

describe('a load', () => {
  test('asks, writes what comes, ends, and tells the other engine once', () => {
    announce(null);
    loader.startLoad(loadOf(1), 100);
    expect(wakeUps).toEqual([100 + LOAD_MS]);
    expect(asked[0]!.question).toEqual({
      engineId: 'p',
      requestId: 'r/7',
      from: 4,
      to: 10,
      rowsStart: null,
      shape: options.shape,
      tokens: options.tokenDigest(PROMPT, 10),
    });
    answer();
    expect(writes).toEqual([[loadOf(1), KEYS]]);
    expect([finished, released]).toEqual([[], []]);
    loader.written(loadOf(1));
    expect(finished).toEqual([[1, { kind: 'loaded', rows: null }, null]]);
    loader.ended('d');
    expect(released).toEqual([remote]);
    expect(loader.counts).toEqual({ loads: 1, failedLoads: 0, tokensLoaded: 6, bytesLoaded: KEYS.byteLength });
    expect(loader.liveCounts()).toEqual({ requests: 0, loads: 0 });
  });

  test.each(['recompute', 'fail'] as const)('that fails ends by policy %s, once, whatever comes later', (kind) => {
    const failures: [string, (fetch: Fetch) => void][] = [
      ['no', (fetch) => loader.refused(fetch, 'no')],
      ['no answer within 500 ms', () => loader.expire(LOAD_MS)],
      ['the KV that came is not what was sent: its checksum is wrong', () => answer({}, false)],
      ['8 words of KV came for 2 blocks', () => answer({ keys: KEYS.slice(8) })],
      ['24 words of KV came for 2 blocks', () => answer({ keys: new Uint32Array(24) })],
    ];
    for (const [problem, fail] of failures) {
      start({ onLoadFailure: kind });
      announce(null);
      loader.startLoad(loadOf(1), 0);
      fail(asked[0]!);
      loader.expire(LOAD_MS);
      loader.refused(asked[0]!, 'late');
      answer();
      answer({}, false);
      expect(finished).toEqual([[1, { kind }, problem]]);
      expect([writes, loader.counts.failedLoads, loader.counts.bytesLoaded]).toEqual([[], 1, 0]);
      loader.ended('d');
      expect(released).toHaveLength(1);
    }
  });

  test('waits until its deadline and no longer; the writing is not bounded', () => {
    announce(null);
    loader.startLoad(loadOf(1), 0);
    loader.expire(LOAD_MS - 1);
    expect(finished).toEqual([]);
    answer();
    loader.expire(LOAD_MS);
    expect([finished, cancelled]).toEqual([[], []]);
    loader.notWritten(loadOf(1), 'no room');
    loader.written(loadOf(1));
    expect(finished).toEqual([[1, { kind: 'recompute' }, 'no room']]);
  });

  test('of several requests: one wake-up call is out at a time, for the deadline that comes first', () => {
    for (const [i, requestId] of ['a', 'b', 'c'].entries()) {
      announce(null, {}, [requestId]);
      loader.startLoad(loadOf(i, requestId), 10 * i);
    }
    expect(wakeUps).toEqual([LOAD_MS]);
    loader.refused(asked[1]!, 'no');
    loader.expire(LOAD_MS);
    expect(wakeUps).toEqual([LOAD_MS, LOAD_MS + 20]);
    loader.expire(LOAD_MS + 20);
    expect(finished.map(([loadId]) => loadId)).toEqual([1, 0, 2]);
    expect(cancelled).toEqual([asked[0], asked[2]]);
  });

  test('of a request that is aborted ends all the same: its blocks are its own until then', () => {
    announce(null);
    loader.startLoad(loadOf(1), 0);
    loader.ended('d');
    expect(released).toHaveLength(1);
    answer();
    loader.written(loadOf(1));
    expect(finished).toHaveLength(1);
    expect(released).toHaveLength(1);
  });

  test.each(['fetched', 'written'] as const)('whose workers are lost while its KV is %s is never finished', (when) => {
    announce(null);
    loader.startLoad(loadOf(1), 0);
    if (when === 'written') answer();
    expect(loader.liveCounts().loads).toBe(1);
    loader.onWorkersLost();
    expect(cancelled).toEqual(when === 'fetched' ? asked : []);
    answer();
    loader.refused(asked[0]!, 'no');
    loader.expire(LOAD_MS);
    loader.written(loadOf(1));
    loader.notWritten(loadOf(1), 'late');
    expect([finished, writes.length]).toEqual([[], when === 'written' ? 1 : 0]);
    expect([loader.counts.failedLoads, loader.liveCounts().loads]).toEqual([0, 0]);
    loader.ended('d');
    expect(released).toHaveLength(1);
  });
});

describe('the choices of a prompt', () => {
  beforeEach(() => announce(5, {}, ['a', 'b', 'c']));

  test('fetch the KV once if they begin together, and again if not', () => {
    loader.startLoad(loadOf(1, 'a'), 0);
    loader.startLoad(loadOf(2, 'b'), 1);
    expect(asked).toHaveLength(1);
    answer({ rows: rowsOf(5, 10) });
    expect(writes.map(([load]) => load.loadId)).toEqual([1, 2]);
    loader.startLoad(loadOf(3, 'c'), 2);
    expect(asked).toHaveLength(2);
    loader.refused(asked[1]!, 'no');
    loader.written(loadOf(2, 'b'));
    loader.written(loadOf(1, 'a'));
    expect(finished.map(([loadId, { kind }]) => [loadId, kind])).toEqual([
      [3, 'recompute'],
      [2, 'loaded'],
      [1, 'loaded'],
    ]);
  });

  test('fetch twice if they need different parts', () => {
    loader.startLoad(loadOf(1, 'a'), 0);
    loader.startLoad({ ...loadOf(2, 'b'), from: 8, blockIds: [5] }, 1);
    expect(asked.map(({ question }) => question.from)).toEqual([4, 8]);
  });

  test('release the KV when the last of them has it, or has ended', () => {
    loader.startLoad(loadOf(1, 'a'), 0);
    answer({ rows: rowsOf(5, 10) });
    loader.written(loadOf(1, 'a'));
    loader.ended('b');
    loader.ended('a');
    expect(released).toEqual([]);
    loader.ended('c');
    expect(released).toEqual([remote]);
  });

  test('all fail if their question does', () => {
    loader.startLoad(loadOf(1, 'a'), 0);
    loader.startLoad(loadOf(2, 'b'), 1);
    loader.refused(asked[0]!, 'no');
    expect(finished.map(([loadId]) => loadId)).toEqual([1, 2]);
    expect(loader.counts).toMatchObject({ loads: 2, failedLoads: 2 });
  });
});

describe('what may be loaded', () => {
  const request = { requestId: 'd', numPromptTokens: 9 };

  test('is what was announced, and of the prompt', () => {
    expect(loader.externalKv(request)).toBeNull();
    announce(0);
    expect(loader.externalKv(request)).toEqual({ numTokens: 9, hasRows: true });
    expect(loader.externalKv({ ...request, numPromptTokens: 99 })!.numTokens).toBe(10);
    loader.ended('d');
    expect(loader.externalKv(request)).toBeNull();
  });

  test.each<readonly [PdRows, Partial<RemoteKv>, boolean]>([
    ['with-kv', { hasRows: false }, false],
    ['with-kv', { hasRows: false, carried: rowsOf(0, 10) }, true],
    ['carry', { hasRows: true }, true],
    ['splice', { hasRows: false }, true],
  ])('by %s of %o has rows: %s', (rows, changes, hasRows) => {
    start({ rows });
    announce(0, changes);
    expect(loader.externalKv(request)!.hasRows).toBe(hasRows);
  });
});

describe('rows', () => {
  const carried = rowsOf(0, 10);
  const missing = { start: 5, count: 5, missing: [[5, 10]] };

  test.each<readonly [string, PdRows, Partial<RemoteKv>, number | null, number | null, object | null]>([
    ['that are not wanted', 'with-kv', {}, null, null, null],
    ['that are promised', 'with-kv', {}, 5, 5, rowsOf(5, 10)],
    ['from before the load', 'with-kv', {}, 0, 4, rowsOf(4, 10)],
    ['from behind the load', 'with-kv', {}, 10, null, { start: 10, count: 0, missing: [] }],
    ['that there are none of', 'with-kv', { hasRows: false }, 5, null, null],
    ['that were carried', 'with-kv', { carried }, 5, null, carried],
    ['that will be spliced', 'splice', { carried }, 5, null, missing],
  ])('%s (%s): asked for and handed on', (_, rows, changes, rowsStart, wanted, got) => {
    start({ rows });
    announce(rowsStart, changes);
    loader.startLoad(loadOf(1), 0);
    expect(asked[0]!.question.rowsStart).toBe(wanted);
    expect(asked[0]!.carried).toBe(got === carried ? carried : null);
    // Rows that come unasked are not taken over.
    answer({ rows: rowsOf(wanted ?? 5, 10) });
    loader.written(loadOf(1));
    const { rows: given } = finished[0]![1] as KvLoadOutcome & { kind: 'loaded' };
    if (got === null) expect(given).toBeNull();
    else expect(given).toMatchObject(got);
  });

  test.each([
    ['nothing', null],
    ['an early range', rowsOf(4, 9)],
    ['a late start', rowsOf(6, 10)],
    ['an early end', rowsOf(5, 9)],
    ['a gap', { ...rowsOf(5, 10), missing: [[7, 8] as const] }],
  ])('that were promised, and %s comes: the load fails', (_, rows) => {
    announce(5);
    loader.startLoad(loadOf(1), 0);
    answer({ rows });
    expect(finished).toEqual([[1, { kind: 'recompute' }, 'the rows did not come with the KV']]);
    expect(writes).toEqual([]);
  });
});
