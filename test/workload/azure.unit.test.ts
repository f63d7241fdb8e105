/** Azure traces: every prompt is its own, times become offsets; a broken line is named by file, line and problem. */

import { expect, test } from 'vitest';
import { parseAzure } from '../../src/workload/traces/azure.ts';
import { traceWorkload } from '../../src/workload/traces/trace.ts';
import { commonPrefix, userError } from './helpers.ts';

const HEADER = 'TIMESTAMP,ContextTokens,GeneratedTokens';
const GOOD = '2023-11-16 18:15:46.6805900,374,44';

test('rows become lengths and offsets in milliseconds', () => {
  const content = `${HEADER}\r\n${GOOD}\r\n2023-11-16 18:15:50.9951690,396,109\r\n2023-11-17 00:00:00,1,1\r\n`;
  const entries = parseAzure(content, 't');
  expect(entries.map((entry) => [entry.inputLength, entry.outputLength])).toEqual([
    [374, 44],
    [396, 109],
    [1, 1],
  ]);
  const { requests } = traceWorkload({ file: 't', name: 't', entries }, { seed: 1, vocabSize: 1000 });
  expect(requests.map((request) => request.promptTokenIds.length)).toEqual([374, 396, 1]);
  expect(requests[0]!.arrivalMs).toBe(0);
  expect(requests[1]!.arrivalMs).toBeCloseTo(4314.579, 3);
  expect(requests[2]!.arrivalMs).toBeCloseTo(20_653_319.41, 3);
});

test('times with an offset from UTC are told apart', () => {
  const content = `${HEADER}\n2024-05-10 00:00:00.5+00:00,1,1\n2024-05-10 01:00:00.25+01:00,1,1\n`;
  const [first, second] = parseAzure(content, 't');
  expect(first!.timestampMs - second!.timestampMs).toBeCloseTo(250, 3);
});

test('no two prompts share a token at their start, nor the text behind it', () => {
  const entries = parseAzure([HEADER, ...Array.from({ length: 50 }, () => GOOD)].join('\n'), 't');
  const { requests } = traceWorkload({ file: 't', name: 't', entries }, { seed: 1, vocabSize: 50, scaleLengths: 10 });
  for (const [number, request] of requests.entries()) {
    for (const earlier of requests.slice(0, number)) {
      expect(commonPrefix(earlier.promptTokenIds, request.promptTokenIds)).toBe(0);
      expect(earlier.promptTokenIds.subarray(1)).not.toEqual(request.promptTokenIds.subarray(1));
    }
  }
});

test('empty lines, a byte order mark, spaces, columns in another order and further columns are no problem', () => {
  const content = `\u{feff}GeneratedTokens,TIMESTAMP,Model,ContextTokens\n\n 44 ,2023-11-16T18:15:46Z,x,374\r\n\n`;
  expect(parseAzure(content, 't')).toEqual([
    { timestampMs: Date.UTC(2023, 10, 16, 18, 15, 46), inputLength: 374, outputLength: 44, hashIds: null },
  ]);
});

test('lines behind the last request that is wanted are not looked at', () => {
  expect(parseAzure(`${HEADER}\n\n${GOOD}\n${GOOD}\nnonsense\n`, 't', 2)).toHaveLength(2);
});

test.each([
  ['nonsense', '1 fields, the header has 3'],
  [`${GOOD},5`, '4 fields, the header has 3'],
  ['yesterday,374,44', 'TIMESTAMP is "yesterday", not a date and time'],
  ['2023-02-30 00:00:00,374,44', 'TIMESTAMP is "2023-02-30 00:00:00", not a date and time'],
  ['2023-11-16 25:00:00,374,44', 'TIMESTAMP is "2023-11-16 25:00:00", not a date and time'],
  [',374,44', 'TIMESTAMP is "", not a date and time'],
  ['2023-11-16 18:15:46,-374,44', 'ContextTokens is "-374", not a whole number ≥ 1'],
  ['2023-11-16 18:15:46,3.5,44', 'ContextTokens is "3.5", not a whole number ≥ 1'],
  ['2023-11-16 18:15:46,0,44', 'ContextTokens is "0", not a whole number ≥ 1'],
  ['2023-11-16 18:15:46,374,', 'GeneratedTokens is "", not a whole number ≥ 1'],
  ['2023-11-16 18:15:46,374,1e3', 'GeneratedTokens is "1e3", not a whole number ≥ 1'],
  ['2023-11-16 18:15:46,374,"44', 'GeneratedTokens is "\\"44", not a whole number ≥ 1'],
  ['2023-11-16 18:15:46,374,99999999999999999999', 'GeneratedTokens is "99999999999999999999", not a whole number ≥ 1'],
])('the broken line %j is named', (line, problem) => {
  expect(userError(() => parseAzure(`${HEADER}\r\n${GOOD}\r\n\r\n${line}\r\n${GOOD}\r\n`, 'a/trace.csv'))).toBe(
    `BAD_TRACE_LINE a/trace.csv:4: ${problem}`,
  );
});

test.each(['time,in,out', 'TIMESTAMP,ContextTokens', GOOD])('the header %j is refused', (header) => {
  expect(userError(() => parseAzure(`${header}\n${GOOD}\n`, 'a/trace.csv'))).toBe(
    `BAD_TRACE_LINE a/trace.csv:1: the header is "${header}", not ${HEADER}`,
  );
});
