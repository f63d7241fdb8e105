/**
 * Mooncake traces: equal hash ids give equal tokens, at every scale; a broken line is named by file, line and problem.
 */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseMooncake } from '../../src/workload/traces/mooncake.ts';
import { traceWorkload } from '../../src/workload/traces/trace.ts';
import type { TraceEntry } from '../../src/workload/traces/trace.ts';
import { commonPrefix, fingerprint, userError } from './helpers.ts';

const GOOD = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}';
const OPTIONS = { seed: 1, vocabSize: 100_000 };

function arrivalAt(timestampMs: number): TraceEntry {
  return { timestampMs, inputLength: 1, outputLength: 1, hashIds: null };
}

/**
 * Two prompts whose first `numShared` blocks are the same, then blocks of their own; each ends anywhere in its last
 * block.
 */
const pairs = fc
  .record({
    numShared: fc.nat(6),
    numOwn: fc.tuple(fc.nat(4), fc.nat(4)),
    lastBlockTokens: fc.tuple(fc.integer({ min: 1, max: 512 }), fc.integer({ min: 1, max: 512 })),
  })
  .filter(({ numShared, numOwn }) => numShared + Math.min(...numOwn) > 0)
  .map(({ numShared, numOwn, lastBlockTokens }) => ({
    numShared,
    entries: [0, 1].map((side): TraceEntry => {
      const hashIds = [
        ...Array.from({ length: numShared }, (_, block) => block),
        ...Array.from({ length: numOwn[side]! }, (_, block) => 100 * (side + 1) + block),
      ];
      const inputLength = 512 * (hashIds.length - 1) + lastBlockTokens[side]!;
      return { timestampMs: 0, inputLength, outputLength: 7, hashIds };
    }),
  }));

const scales = fc.oneof(
  fc.constantFrom(1, 2, 16, 64, 512),
  fc.double({ min: 1, max: 512, noNaN: true, noDefaultInfinity: true }),
);

test('scaled prompts share exactly the scaled length of the blocks that they share', () => {
  fc.assert(
    fc.property(pairs, scales, ({ numShared, entries }, scaleLengths) => {
      const { requests } = traceWorkload({ file: 't', name: 't', entries }, { ...OPTIONS, scaleLengths });
      const [a, b] = requests.map((request) => request.promptTokenIds);
      expect(a!.length).toBe(Math.max(1, Math.round(entries[0]!.inputLength / scaleLengths)));
      expect(b!.length).toBe(Math.max(1, Math.round(entries[1]!.inputLength / scaleLengths)));
      expect(requests[0]!.maxTokens).toBe(Math.max(1, Math.round(7 / scaleLengths)));
      const sharedTokens = Math.round((512 * numShared) / scaleLengths);
      // A prompt of less than half a token is still one token, of its last block.
      const isExact = entries.every((entry) => entry.inputLength / scaleLengths >= 0.5);
      if (isExact) expect(commonPrefix(a!, b!)).toBe(Math.min(sharedTokens, a!.length, b!.length));
    }),
    { numRuns: 300 },
  );
});

test('the same seed gives the same bytes, another seed other tokens and the same lengths', () => {
  const entries = parseMooncake(`${GOOD}\n${GOOD}\n`, 't');
  const make = (seed: number) => traceWorkload({ file: 't', name: 't', entries }, { ...OPTIONS, seed });
  expect(fingerprint(make(1))).toBe(fingerprint(make(1)));
  expect(fingerprint(make(2))).not.toBe(fingerprint(make(1)));
  expect(make(2).requests.map((request) => request.promptTokenIds.length)).toEqual([600, 600]);
});

test('blocks of different ids differ in more than their first token, blocks of one id in nothing', () => {
  const entries = [5, 6, 5].map((id) => ({ ...arrivalAt(0), inputLength: 512, hashIds: [id] }));
  const { requests } = traceWorkload({ file: 't', name: 't', entries }, OPTIONS);
  const [a, b, again] = requests.map((request) => request.promptTokenIds);
  expect(again).toEqual(a);
  expect(a!.filter((token, position) => token === b![position]).length).toBeLessThan(5);
});

test('tokens stay inside the vocabulary, and lengths are at least 1 at any scale', () => {
  const entries = parseMooncake(GOOD, 't');
  for (const [vocabSize, scaleLengths] of [
    [2, 1],
    [50, 16],
    [50, 1e6],
  ] as const) {
    const [request] = traceWorkload({ file: 't', name: 't', entries }, { seed: 1, vocabSize, scaleLengths }).requests;
    expect(request!.promptTokenIds.length).toBeGreaterThanOrEqual(1);
    expect(request!.promptTokenIds.every((token) => token < vocabSize)).toBe(true);
    expect(request!.maxTokens).toBeGreaterThanOrEqual(1);
  }
});

test('arrivals count from the earliest and are divided by the speedup', () => {
  const { requests } = traceWorkload(
    { file: 't', name: 't', entries: [5000, 4000, 9000].map(arrivalAt) },
    { ...OPTIONS, speedup: 4 },
  );
  expect(requests.map((request) => request.arrivalMs)).toEqual([250, 0, 1250]);
});

test('empty lines, Windows line ends, a byte order mark and unknown fields are no problem', () => {
  const extra = '{"timestamp": 3, "input_length": 1, "output_length": 1, "hash_ids": [9], "type": "text"}';
  const entries = parseMooncake(`\u{feff}${GOOD}\r\n\r\n${extra}`, 't');
  expect(entries.map((entry) => entry.hashIds)).toEqual([[0, 1], [9]]);
});

test('lines behind the last request that is wanted are not looked at', () => {
  expect(parseMooncake(`${GOOD}\n${GOOD}\nnonsense`, 't', 2)).toHaveLength(2);
});

const replaced = (field: string, value: unknown) => JSON.stringify({ ...JSON.parse(GOOD), [field]: value });
const removed = (field: string) => replaced(field, undefined);

test.each([
  ['nonsense', 'not JSON: "nonsense"'],
  [GOOD.slice(0, 40), 'not JSON: "{\\"timestamp\\": 0, \\"input_length\\": 600, \\"o"'],
  ['\u{1b}[2Jx', 'not JSON: "\\u001b[2Jx"'],
  ['x'.repeat(1000), `not JSON: "${'x'.repeat(59)}…`],
  ['[1, 2]', 'not a JSON object: [1,2]'],
  ['null', 'not a JSON object: null'],
  [removed('timestamp'), 'field "timestamp" is missing'],
  [removed('input_length'), 'field "input_length" is missing'],
  [removed('output_length'), 'field "output_length" is missing'],
  [removed('hash_ids'), 'field "hash_ids" is missing'],
  [replaced('timestamp', -1), 'timestamp is -1, not a number of milliseconds ≥ 0'],
  [replaced('timestamp', '0'), 'timestamp is "0", not a number of milliseconds ≥ 0'],
  [replaced('input_length', -600), 'input_length is -600, not a whole number ≥ 1'],
  [replaced('input_length', 600.5), 'input_length is 600.5, not a whole number ≥ 1'],
  [replaced('input_length', 0), 'input_length is 0, not a whole number ≥ 1'],
  [replaced('output_length', null), 'output_length is null, not a whole number ≥ 1'],
  [replaced('output_length', 2 ** 53), 'output_length is 9007199254740992, not a whole number ≥ 1'],
  [replaced('hash_ids', 3), 'hash_ids is 3, not a list'],
  [replaced('hash_ids', [0, -1]), 'hash_ids[1] is -1, not a whole number ≥ 0'],
  [replaced('hash_ids', [0, 'a']), 'hash_ids[1] is "a", not a whole number ≥ 0'],
  [replaced('hash_ids', [0]), 'hash_ids has 1 ids, an input_length of 600 has 2 blocks of 512 tokens'],
  [replaced('hash_ids', [0, 1, 2]), 'hash_ids has 3 ids, an input_length of 600 has 2 blocks of 512 tokens'],
])('the broken line %j is named', (line, problem) => {
  expect(userError(() => parseMooncake(`${GOOD}\n${line}\n${GOOD}\n`, 'a/trace.jsonl'))).toBe(
    `BAD_TRACE_LINE a/trace.jsonl:2: ${problem}`,
  );
});

test.each([
  [{ requests: 0 }, 'requests is 0; give a whole number from 1 to 1000000'],
  [{ scaleLengths: 0.5 }, 'scaleLengths is 0.5; give a finite number ≥ 1'],
  [{ scaleLengths: Infinity }, 'scaleLengths is Infinity; give a finite number ≥ 1'],
  [{ scaleLengths: Number.NaN }, 'scaleLengths is NaN; give a finite number ≥ 1'],
  [{ speedup: 0 }, 'speedup is 0; give a finite number > 0'],
  [{ speedup: -2 }, 'speedup is -2; give a finite number > 0'],
  [{ seed: 0.5 }, 'seed is 0.5; give a whole number ≥ 0'],
  [{ vocabSize: 0 }, 'vocabSize is 0; give a whole number from 2 to 4294967295'],
])('%o is refused by name', (options, message) => {
  const entries = parseMooncake(GOOD, 't');
  expect(userError(() => traceWorkload({ file: 't', name: 't', entries }, { ...OPTIONS, ...options }))).toBe(
    `BAD_VALUE ${message}`,
  );
});

test('prompts that would not fit in memory are refused before they are made', () => {
  const entry: TraceEntry = { timestampMs: 0, inputLength: 1e12, outputLength: 1, hashIds: null };
  expect(userError(() => traceWorkload({ file: 't.csv', name: 't', entries: [entry] }, OPTIONS))).toMatch(
    /^BAD_FILE t\.csv: its prompts have 1000000000000 tokens, at most 268435456 are held at once/u,
  );
});
