// A recording is read whole or refused with the request and field that is wrong.

import { expect, test } from 'vitest';
import { parseRecording, recordingWorkload } from '../../src/workload/traces/recording.ts';
import { userError } from './helpers.ts';

const base64 = (bytes: readonly number[]): string => btoa(String.fromCharCode(...bytes));

const valid = {
  model: { layers: 1, experts: 4, topK: 2 },
  requests: [
    { id: 'a', promptTokenIds: [7, 8], outputTokenIds: [9, 10], rowCount: 3, rows: base64([0, 1, 2, 3, 1, 0]) },
  ],
};

const parse = (value: unknown) =>
  parseRecording('f.json', 'f', typeof value === 'string' ? value : JSON.stringify(value));
const withRequest = (fields: object) => ({ ...valid, requests: [{ ...valid.requests[0], ...fields }] });

test('tokens and rows as they were recorded', () => {
  const recording = parse(valid);
  expect(recording).toMatchObject({ name: 'f', numLayers: 1, numExperts: 4, topK: 2 });
  expect([...recording.requests[0]!.rows]).toEqual([0, 1, 2, 3, 1, 0]);
  const { requests } = recordingWorkload(recording);
  expect(requests).toMatchObject([{ requestId: 'a', maxTokens: 2 }]);
});

test('two bytes an id for more than 256 experts', () => {
  const rows = base64([1, 1, 0, 0, 2, 0, 255, 0, 0, 0, 1, 0]);
  const recording = parse({ ...withRequest({ rows }), model: { layers: 1, experts: 300, topK: 2 } });
  expect([...recording.requests[0]!.rows]).toEqual([257, 0, 2, 255, 0, 1]);
});

test.each([
  ['hello', 'not JSON: "hello"'],
  ['[]', 'model is missing, not an object'],
  [{ ...valid, model: { layers: 0 } }, 'layers is 0, not a whole number ≥ 1'],
  [{ ...valid, requests: [] }, 'requests is not a list of requests'],
  [{ ...valid, requests: [null] }, 'request 0 is null, not an object'],
  [withRequest({ id: 3 }), 'request 0: id is 3, not a text'],
  [withRequest({ promptTokenIds: [] }), 'request "a": promptTokenIds is not a list of token ids'],
  [withRequest({ outputTokenIds: [-1] }), 'request "a": outputTokenIds is not a list of token ids'],
  [withRequest({ rows: '!' }), 'request "a": rows is not base64'],
  [withRequest({ rows: base64([0, 1]) }), 'request "a": rows has 2 ids, 3 rows are 6'],
  [withRequest({ rows: base64([0, 1, 2, 3, 1, 4]) }), 'request "a": expert 4 of 4'],
  [{ ...valid, requests: [valid.requests[0], valid.requests[0]] }, 'two requests have one id'],
])('%j is refused', (value, problem) => {
  expect(userError(() => parse(value))).toBe(`BAD_FILE f.json: ${problem}`);
});
