/**
 * A delivered row is a routing, even where the oracle would agree with one that is none: K ids of experts that there
 * are, in each layer (L2, L4).
 */

import { expect, test } from 'vitest';
import { routedRows } from '../../src/capture/routed-rows.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import { Judge } from '../../src/sim/laws/judge.ts';
import type { Ledger } from '../../src/sim/laws/ledger.ts';
import { RowCheck } from '../../src/sim/laws/row-check.ts';
import { TrackedRequest } from '../../src/sim/laws/tracked-request.ts';

const MODEL = { name: 'rows', numLayers: 2, numExperts: 8, topK: 2, vocabSize: 29, gateWidth: 8 };
const SPEC = {
  at: 0,
  id: 'r',
  prompt: [1, 2],
  maxTokens: 1,
  minTokens: 0,
  eos: null,
  stops: [],
  rows: true,
  rowsFrom: 0,
  priority: 0,
  salt: null,
};

/** Delivers one row to a check whose oracle expects just this row. */
function deliver(row: readonly number[], model: typeof MODEL = MODEL): void {
  const request = new TrackedRequest({ index: 0, spec: SPEC, arrivalTime: 0, maxPositions: 8, rowLength: row.length });
  const ledger = { rowOf: () => Uint16Array.from(row) } as unknown as Ledger;
  const scenario = { model, hasEpochs: false, readsAtOnce: true };
  const check = new RowCheck({ scenario, ledger, judge: new Judge([]), requests: [request], rowsAreSpliced: false });
  check.onRows(request, routedRows(rowShape(model), 0, 1, { chunks: [Uint8Array.from(row)] }));
}

test('a routing passes', () => {
  expect(() => deliver([0, 7, 7, 3])).not.toThrow();
});

test.each([
  ['an expert twice in one layer', [0, 7, 3, 3], /no routing in layer 1: \[3,3\]/],
  ['an expert that there is not', [8, 1, 2, 3], /no routing in layer 0: \[8,1\]/],
  ['nothing but zeros', [0, 0, 0, 0], /no routing in layer 0/],
] as const)('%s is refused', (_, row, message) => {
  expect(() => deliver(row)).toThrow(message);
});

test('zeros of a top-1 router are a routing: no look at a row by itself finds them', () => {
  expect(() => deliver([0, 0], { ...MODEL, topK: 1 })).not.toThrow();
});
