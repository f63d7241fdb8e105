/**
 * A design of the caller's own that breaks its contract while an engine serves with it: whatever the hook, the requests
 * that it concerns end with an error that names design and hook, the others go on, and nothing is left.
 */

import { describe, expect, test } from 'vitest';
import { designs } from '../../../src/capture/designs.ts';
import { toArray } from '../../../src/capture/routed-rows.ts';
import type { RoutedRows } from '../../../src/contract/routed-rows.ts';
import { oracle } from '../../../src/kernels/model/oracle.ts';
import { brokenDesign, type Fault, type Hook } from './broken-design.ts';
import { GuardedEngine, model, NOTHING_LEFT, type Ran } from './guarded-engine.ts';

const numbers = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => (from + i) % 97);
const SHARED = numbers(3, 12);

/**
 * Serves requests in waves: `first` caches a prefix, `victim` and `other` hit it, are preempted by a reset, and lose
 * their workers; `evicting` takes the blocks of all of them. `plain` asks for no rows.
 */
async function serve(fault: Fault): Promise<{ engine: GuardedEngine; of: (id: string) => Ran; left: unknown }> {
  const engine = new GuardedEngine(brokenDesign(fault));
  await engine.startWorker();
  engine.add('first', [...SHARED, 1], true, 4);
  await engine.run();
  engine.add('plain', numbers(40, 9), false);
  engine.add('victim', [...SHARED, 50, 51], true);
  engine.add('other', [...SHARED, 60], true);
  await engine.run(3);
  engine.core.resetPrefixCache({ resetRunning: true });
  await engine.run(3);
  await engine.loseWorkers();
  await engine.run();
  engine.add('evicting', numbers(20, 50), true);
  await engine.run();
  engine.add('later', numbers(30, 9), true);
  engine.add('later plain', numbers(31, 9), false);
  await engine.run();
  return { engine, of: (id) => engine.requests.get(id)!, left: await engine.close() };
}

function expectServed(request: Ran, asks: boolean): void {
  expect(request).toMatchObject({ finish: 'length', failure: null, refusal: null });
  const tokens = [...request.prompt, ...request.tokens];
  const expected = oracle(model, tokens);
  expect(request.tokens).toEqual([...expected.nextTokens].slice(request.prompt.length - 1, -1));
  if (!asks) return expect(request.rows).toBeNull();
  const rows = request.rows!;
  const width = rows.numLayers * rows.topK;
  expect([rows.start, rows.count, rows.missing]).toEqual([0, tokens.length - 1, []]);
  expect([...toArray(rows, 0xff)]).toEqual([...expected.rows.subarray(0, rows.count * width)]);
}

function expectFailed(request: Ran, hook: string, problem = 'it threw Error: boom'): void {
  const failure = request.refusal ?? request.failure;
  expect(failure).toMatchObject({ code: 'DESIGN_FAILED' });
  expect(failure!.message).toContain(`design "mine" broke its contract in ${hook}: ${problem}`);
  expect(request.refusal === null ? request.finish : 'refused').toBe(request.refusal === null ? 'error' : 'refused');
  expect(request.rows).toBeNull();
}

test('a design that keeps its contract is not disturbed by its guard', async () => {
  const { of, left } = await serve({ half: 'engineHalf', hook: 'take', requestId: 'nobody' });
  for (const id of ['first', 'victim', 'other', 'evicting', 'later']) expectServed(of(id), true);
  for (const id of ['plain', 'later plain']) expectServed(of(id), false);
  expect(left).toEqual(NOTHING_LEFT);
});

describe('a hook that concerns one request', () => {
  const ofOne = ['wants', 'hasRows', 'onPrefixHit', 'onBlocksCached', 'onPreempt', 'take', 'release'];
  test.each(ofOne)('%s throws: this request ends with an error, the others go on', async (hook) => {
    const { of, left } = await serve({ half: 'engineHalf', hook, requestId: 'victim', breaks: worksAndThrows });
    expectFailed(of('victim'), `engineHalf.${hook}`);
    for (const id of ['first', 'other', 'evicting', 'later']) expectServed(of(id), true);
    for (const id of ['plain', 'later plain']) expectServed(of(id), false);
    expect(left).toEqual(NOTHING_LEFT);
  });

  test('it fails for a request that asked for no rows: that one goes on, and the design is switched off', async () => {
    const { of, left } = await serve({
      half: 'engineHalf',
      hook: 'wants',
      requestId: 'plain',
    });
    expectServed(of('first'), true);
    for (const id of ['victim', 'other', 'evicting', 'later']) expectFailed(of(id), 'engineHalf.wants');
    for (const id of ['plain', 'later plain']) expectServed(of(id), false);
    expect(left).toEqual(NOTHING_LEFT);
  });
});

describe('a hook that concerns all requests', () => {
  const ofAll: readonly (readonly [Fault['half'], string])[] = [
    ['engineHalf', 'onScheduled'],
    ['engineHalf', 'onStepOutput'],
    ['engineHalf', 'onBlockEvicted'],
    ['engineHalf', 'onCacheReset'],
    ['engineHalf', 'onStepsLost'],
    ['engineHalf', 'liveCounts'],
    ['workerHalf', 'record'],
    ['workerHalf', 'collect'],
    ['workerHalf', 'forget'],
    ['workerHalf', 'recycle'],
  ];
  test.each(ofAll)('%s.%s throws: requests that asked for rows end, the others go on', async (half, hook) => {
    let numCalls = 0;
    const throwsLate = hook === 'liveCounts' ? 0 : 1;
    const breaks: Fault['breaks'] = (work, ...args) => {
      if (numCalls++ < throwsLate && hook !== 'onCacheReset' && hook !== 'onStepsLost') return work(...args);
      throw new Error('boom');
    };
    const { engine, of, left } = await serve({ half, hook, breaks });
    const failed = [...engine.requests.values()].filter((each) => (each.failure ?? each.refusal) !== null);
    for (const request of failed) expectFailed(request, `${half}.${hook}`);
    if (hook !== 'liveCounts') expect(of('later').refusal ?? of('later').failure).not.toBeNull();
    for (const id of ['plain', 'later plain']) expectServed(of(id), false);
    for (const [id, request] of engine.requests) {
      if (!failed.includes(request) && !id.includes('plain')) expectServed(request, true);
    }
    expect(left).toEqual(NOTHING_LEFT);
  });

  test('of a design that blocks, a blocking read throws: requests that asked end, the others go on', async () => {
    for (const hook of ['readBefore', 'takeBefore', 'readAfter', 'takeAfter']) {
      const { of } = await serve({ half: 'workerHalf', hook, base: designs['shm-flock'] });
      for (const id of ['first', 'victim', 'later']) expectFailed(of(id), `workerHalf.${hook}`);
      for (const id of ['plain', 'later plain']) expectServed(of(id), false);
    }
  });

  test('a worker half that fails in close keeps nobody from closing', async () => {
    for (const half of ['engineHalf', 'workerHalf'] as const) {
      const { of, left } = await serve({ half, hook: 'close' });
      expectServed(of('later'), true);
      expect(left).toEqual(NOTHING_LEFT);
    }
  });
});

describe('what a hook returns', () => {
  const shapes: readonly (readonly [string, (rows: RoutedRows) => unknown, string])[] = [
    ['a promise', (rows) => Promise.resolve(rows), 'it returned a promise, and halves are synchronous'],
    ['a rejection', () => Promise.reject(new Error('late')), 'it returned a promise'],
    ['a number', () => 7, 'it returned number; return rows or null'],
    ['nothing at the end', () => null, 'are neither there nor missing'],
    ['too few rows', (rows) => ({ ...rows, count: rows.count - 1 }), 'neither there nor missing'],
    ['too many rows', (rows) => ({ ...rows, count: rows.count + 1 }), 'it returned the rows [0, 24); due are [0, 23)'],
    ['a late start', (rows) => ({ ...rows, start: 1, count: rows.count - 1 }), 'it returned the rows [1, 23)'],
    ['another model', (rows) => ({ ...rows, topK: 99 }), 'topK of its rows is 99'],
    ['another dtype', (rows) => ({ ...rows, dtype: 'float32' }), 'dtype of its rows is float32'],
    ['chunks of another type', (rows) => ({ ...rows, dtype: 'int32' }), 'are neither in a int32 chunk nor missing'],
    ['too few chunks', (rows) => ({ ...rows, chunks: rows.chunks.slice(1) }), 'chunk nor missing'],
    ['short chunks', (rows) => ({ ...rows, chunks: rows.chunks.map((c) => c!.subarray(1)) }), 'entries, needed are'],
    ['no chunks', (rows) => ({ ...rows, chunks: undefined }), 'its rows have no list of chunks'],
    ['no missing ranges', (rows) => ({ ...rows, missing: undefined }), 'no list of missing ranges'],
    ['an empty missing range', (rows) => ({ ...rows, missing: [[2, 2]] }), 'missing range [2,2)'],
    ['a missing range outside', (rows) => ({ ...rows, missing: [[2, 99]] }), 'missing range [2,99)'],
    ['chunks of no rows', (rows) => ({ ...rows, rowsPerChunk: 0 }), 'rowsPerChunk of its rows is 0'],
    ['chunks behind the rows', (rows) => ({ ...rows, chunkOrigin: 5 }), 'chunkOrigin of its rows is 5'],
  ];
  test.each(shapes)('take returns %s: the request ends with an error', async (_name, change, problem) => {
    const { of, left } = await serve(rowsOfVictim(change));
    expectFailed(of('victim'), 'engineHalf.take', '');
    expect(of('victim').failure!.message).toContain(problem);
    for (const id of ['other', 'evicting', 'later']) expectServed(of(id), true);
    expect(left).toEqual(NOTHING_LEFT);
  });

  test('take hands out rows twice: the request ends with an error before they are joined', async () => {
    const { of } = await serve({
      half: 'engineHalf',
      hook: 'take',
      requestId: 'victim',
      base: designs['slot-store'],
      breaks: (work, ...args) => {
        const rows = work(...args) as RoutedRows | null;
        return rows === null || rows.start === 0
          ? rows
          : { ...rows, start: rows.start - 1, chunkOrigin: rows.start - 1, count: rows.count + 1 };
      },
    });
    const { failure, finish } = of('victim');
    expect([failure?.code, finish]).toEqual(['DESIGN_FAILED', 'error']);
    expect(failure!.message).toContain('engineHalf.take: it returned the rows [');
    expectServed(of('later'), true);
  });

  test('wants returns no boolean: the request is refused', async () => {
    const { of } = await serve({ half: 'engineHalf', hook: 'wants', requestId: 'victim', breaks: () => 'yes' });
    expectFailed(of('victim'), 'engineHalf.wants', 'it returned "yes"; return a boolean');
    expectServed(of('other'), true);
  });

  type Range = { buffer: { byteLength: number }; byteLength: number };
  type Deltas = { rows: Uint8Array; numRows: number; index: Uint32Array; indexLength: number };
  const ofWorker: readonly (readonly [string, string, (made: never, ...args: never[]) => unknown, string])[] = [
    ['record', 'more bytes than it may', (r: Range) => ({ ...r, byteLength: r.buffer.byteLength + 4 }), 'there may be'],
    ['record', 'half words', (r: Range) => ({ ...r, byteLength: 6 }), 'it asked for 6 bytes from byte 0 on'],
    ['record', 'a range past the end', (r: Range) => ({ ...r, byteOffset: r.buffer.byteLength }), 'there may be 0'],
    ['record', 'no buffer', () => ({ byteLength: 4 }), 'it returned no buffer of this device'],
    ['record', 'a promise', (r: Range) => Promise.resolve(r), 'it returned a promise'],
    ['collect', 'a promise', () => Promise.reject(new Error('late')), 'it returned a promise'],
    ['collect', 'garbage', () => 'rows', 'it returned no rows (Uint8Array)'],
    [
      'collect',
      'too many rows',
      (d: Deltas) => ({ ...d, numRows: 1e9 }),
      'numRows is 1000000000; its rows have room for',
    ],
    ['collect', 'a long index', (d: Deltas) => ({ ...d, indexLength: 1e9 }), 'indexLength is 1000000000'],
    ['collect', 'a part of a buffer', (d: Deltas) => ({ ...d, rows: d.rows.subarray(4) }), 'fill an ArrayBuffer'],
    ['collect', 'the bytes it was lent', (d: Deltas, _: never, bytes: Uint8Array) => ({ ...d, rows: bytes }), 'lent'],
    ['collect', 'a buffer that is gone', (d: Deltas) => ({ ...d, rows: detached(d.rows) }), 'given away before'],
  ];
  test.each(ofWorker)('%s returns %s: the design is switched off', async (hook, _name, change, problem) => {
    const breaks: Fault['breaks'] = (work, ...args) => {
      const made = work(...args);
      return made === null ? null : (change as (...all: unknown[]) => unknown)(made, ...args);
    };
    const { of, left } = await serve({ half: 'workerHalf', hook, breaks });
    for (const id of ['first', 'victim', 'other', 'later']) expectFailed(of(id), `workerHalf.${hook}`, '');
    const { failure, refusal } = of('first');
    expect((failure ?? refusal)!.message).toContain(problem);
    for (const id of ['plain', 'later plain']) expectServed(of(id), false);
    expect(left).toEqual(NOTHING_LEFT);
  });
});

test('an abort of a request whose hook has failed ends it once, with the error', async () => {
  const engine = new GuardedEngine(brokenDesign({ half: 'engineHalf', hook: 'onPreempt', requestId: 'victim' }));
  await engine.startWorker();
  engine.add('victim', SHARED, true);
  engine.add('other', SHARED, true);
  await engine.run(2);
  engine.core.resetPrefixCache({ resetRunning: true });
  engine.abort('other');
  expect(engine.requests.get('other')!.finish).toBe('abort');
  expectFailed(engine.requests.get('victim')!, 'engineHalf.onPreempt');
  await engine.run();
  expect(await engine.close()).toEqual(NOTHING_LEFT);
});

/** A half whose books are wrong may well fail again, and for all: this one's stay right. */
const worksAndThrows = (work: Hook, ...args: unknown[]): never => {
  work(...args);
  throw new Error('boom');
};

function rowsOfVictim(change: (rows: RoutedRows) => unknown): Fault {
  return {
    half: 'engineHalf',
    hook: 'take',
    requestId: 'victim',
    breaks: (work, ...args) => {
      const rows = work(...args) as RoutedRows | null;
      return rows === null ? null : change(rows);
    },
  };
}

function detached(rows: Uint8Array): Uint8Array {
  structuredClone(rows.buffer, { transfer: [rows.buffer as ArrayBuffer] });
  return rows;
}
