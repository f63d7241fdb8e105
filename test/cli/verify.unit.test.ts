// The bench's verifier finds what it is there to find: a wrong token, a wrong row, a row too few, a row in another's
// place.

import { describe, expect, test } from 'vitest';
import { routedRows } from '../../src/capture/routed-rows.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import type { ServedRequest } from '../../src/cli/bench/serve-workload.ts';
import { Verifier } from '../../src/cli/bench/verify.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { oracle } from '../../src/kernels/model/oracle.ts';

const model = modelPreset('tiny');
const width = model.numLayers * model.topK;
const NUM_OUTPUTS = 4;

/** A request as a right engine serves it. */
function served(prompt: readonly number[]): ServedRequest & { rows: RoutedRows } {
  const tokens = [...prompt];
  for (let i = 0; i < NUM_OUTPUTS; i++) tokens.push(oracle(model, tokens).nextTokens.at(-1)!);
  const numRows = tokens.length - 1;
  const rows = Uint8Array.from(oracle(model, tokens.slice(0, numRows)).rows);
  return {
    requestId: prompt.join(),
    promptTokenIds: Uint32Array.from(prompt),
    optedIn: true,
    mostOutputTokens: NUM_OUTPUTS,
    outputTokenIds: tokens.slice(prompt.length),
    finishReason: 'length',
    refusal: null,
    rows: routedRows(rowShape(model), 0, numRows, {
      rowsPerChunk: 4,
      chunks: [rows.subarray(0, 4 * width), rows.subarray(4 * width)],
    }),
  };
}

const clean = {
  wrongTokens: 0,
  rowsImpossible: 0,
  rowsMismatched: 0,
  rowsMissing: 0,
  requestsWithWrongCount: 0,
  firstProblem: null,
};

describe('verifier', () => {
  test('passes what is right, and counts it', () => {
    const result = new Verifier(model).verify([served([1, 2, 3]), served([5, 2, 3])]);
    expect(result).toMatchObject({ ...clean, rowsDelivered: 12, rowsVerified: 12 });
  });

  test('a wrong token', () => {
    const request = served([1, 2, 3]);
    request.outputTokenIds[2] = (request.outputTokenIds[2]! + 1) % model.vocabSize;
    expect(new Verifier(model).verify([request])).toMatchObject({ wrongTokens: 1, rowsMismatched: 0 });
  });

  test.each([
    ['an id twice in a layer', (ids: Uint8Array | Uint16Array | Int32Array) => (ids[1] = ids[0]!)],
    ["an id that is no expert's", (ids: Uint8Array | Uint16Array | Int32Array) => (ids[3] = model.numExperts)],
  ])('%s, which no router makes', (_, spoil) => {
    const request = served([1, 2, 3]);
    spoil(request.rows.chunks[1]!);
    expect(new Verifier(model).verify([request])).toMatchObject({ rowsImpossible: 1, rowsMismatched: 1 });
    expect(new Verifier(model).verify([served([1, 2, 3])])).toMatchObject({ rowsImpossible: 0 });
  });

  test('one wrong id in one row', () => {
    const request = served([1, 2, 3]);
    request.rows.chunks[1]![1] = (request.rows.chunks[1]![1]! + 1) % model.numExperts;
    const result = new Verifier(model).verify([request]);
    expect(result).toMatchObject({ rowsMismatched: 1, rowsVerified: 5 });
    expect(result.firstProblem).toContain('row 4');
  });

  test('zeros in place of a row are a mismatch, a declared gap is a missing row', () => {
    const request = served([1, 2, 3]);
    request.rows.chunks[0]!.fill(0, 0, width);
    expect(new Verifier(model).verify([request]).rowsMismatched).toBe(1);
    const declared = { ...request, rows: { ...request.rows, missing: [[0, 1] as const] } };
    const result = new Verifier(model).verify([declared]);
    expect(result).toMatchObject({ ...clean, rowsMissing: 1, rowsVerified: 5 });
  });

  test('a row too few, or no rows at all', () => {
    const request = served([1, 2, 3]);
    const short = { ...request, rows: { ...request.rows, count: request.rows.count - 1 } };
    expect(new Verifier(model).verify([short]).requestsWithWrongCount).toBe(1);
    expect(new Verifier(model).verify([{ ...request, rows: null }]).requestsWithWrongCount).toBe(1);
  });

  test('an output that ends too early, and rows that begin too late', () => {
    const request = served([1, 2, 3]);
    expect(new Verifier(model).verify([{ ...request, mostOutputTokens: NUM_OUTPUTS + 1 }]).requestsWithWrongCount).toBe(
      1,
    );
    const late = { ...request, rows: { ...request.rows, start: 1, count: request.rows.count - 1 } };
    expect(new Verifier(model).verify([late]).requestsWithWrongCount).toBe(1);
  });

  test("another request's rows", () => {
    const [a, b] = [served([1, 2, 3]), served([5, 2, 3])];
    expect(new Verifier(model).verify([{ ...a, rows: b.rows }]).rowsMismatched).toBeGreaterThan(0);
  });
});
