// One pass over rows finds what slower functions find that look at each thing by itself, wherever batches are cut; rows
// that are no traffic are left out, and told.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { countsOf, layersOf } from '../../src/analysis/counts.ts';
import { coverageOf } from '../../src/analysis/load/coverage.ts';
import { LEAST_RUN, RowScan } from '../../src/analysis/load/row-scan.ts';
import { sequenceOverlap } from '../../src/analysis/locality/overlap.ts';
import type { Capture } from '../../src/rows/captures/capture.ts';
import type { RowIds } from '../../src/rows/row-batch.ts';
import { randomOf, randomRowSet } from './disturbed.ts';

type Cut = Readonly<{ scan: RowScan; rows: number[] }>;

/** Feeds rows in batches of random sizes, of an array that is used again, as readers do. */
function scanned(
  ids: RowIds,
  shape: Readonly<{ numLayers: number; topK: number; numExperts: number | null }>,
  seed = 1,
): Cut {
  const random = randomOf(seed);
  const rows: number[] = [];
  const scan = new RowScan({
    shape: { layers: null, ...shape },
    onRow: ({ row, times }) => rows.push(...Array.from({ length: times }, (_, i) => row + i)),
  });
  const width = shape.numLayers * shape.topK;
  const buffer = ids.slice();
  for (let row = 0; row * width < ids.length;) {
    const numRows = Math.min(1 + Math.floor(random() * 5), ids.length / width - row);
    buffer.set(ids.subarray(row * width, (row + numRows) * width));
    const first = row;
    scan.add({
      ids: buffer.subarray(0, numRows * width),
      numRows,
      startsRequest: row === 0,
      endsStep: false,
      placeOf: (entry) => `entry ${first * width + entry}`,
    });
    row += numRows;
  }
  scan.end();
  return { scan, rows };
}

function captureOf(ids: RowIds, numLayers: number, topK: number, numExperts: number): Capture {
  const numRows = ids.length / (numLayers * topK);
  const layers = Array.from({ length: numLayers }, (_, layer) => layer);
  const requests = [{ id: 'r0', firstRow: 0, numRows, promptLen: null, tokens: null }];
  return { name: '', numExperts, topK, layers, numRows, ids, requests, knowsRequests: true, steps: null };
}

test('counts, overlap and dead experts are those of the plain functions', () => {
  const shapes = fc.record({
    numLayers: fc.integer({ min: 1, max: 4 }),
    topK: fc.integer({ min: 1, max: 4 }),
    numExperts: fc.integer({ min: 5, max: 9 }),
    seed: fc.integer({ min: 1, max: 2 ** 31 }),
  });
  const check = fc.property(shapes, ({ seed, ...shape }) => {
    const drawn = randomRowSet({ ...shape, lengths: [50] }, randomOf(seed)).requests[0]!.ids;
    // Some rows are repeated, so that runs are counted, too.
    const width = shape.numLayers * shape.topK;
    const ids = drawn.slice();
    for (let row = 1; row < 50; row++) if (row % 7 < 3) ids.copyWithin(row * width, (row - 1) * width, row * width);
    const capture = captureOf(ids, shape.numLayers, shape.topK, shape.numExperts);
    const { scan } = scanned(ids, shape, seed);
    const zeros = scan.faults.report();
    // A row of zeros is no routing here, and is one for the plain functions.
    fc.pre(zeros.zeros.numRows === 0 && zeros.zeroLayerRows.every((rows) => rows === 0));
    const plain = layersOf(countsOf(capture), shape.numLayers);
    expect(scan.counts().map((layer) => [...layer])).toEqual(plain.map((layer) => [...layer]));
    expect(scan.overlap.report()).toEqual(sequenceOverlap(capture, 1));
    const coverage = coverageOf(capture);
    const after = scan.windows.deadAfter(shape.numExperts);
    for (const { rows, dead } of after) {
      const i = coverage.rows.indexOf(rows);
      if (i >= 0) expect(dead).toEqual(coverage.dead.map((layer) => layer[i]));
    }
    expect(after.at(-1)!.rows).toBe(50);
  });
  fc.assert(check, { numRuns: 40 });
});

const ROW = [1, 2, 3, 4];
const OTHER = [4, 3, 2, 1];
const SHAPE = { numLayers: 2, topK: 2, numExperts: 8 };

function rowsOf(...parts: readonly (readonly [row: readonly number[], times: number])[]): Int32Array {
  return Int32Array.from(parts.flatMap(([row, times]) => Array.from({ length: times }, () => row).flat()));
}

test('a long run of equal rows is left out, and its shorter continuation, too; a short one counts', () => {
  const { scan, rows } = scanned(rowsOf([OTHER, 2], [ROW, LEAST_RUN], [OTHER, 3], [ROW, 5], [OTHER, 1]), SHAPE);
  const faults = scan.faults.report();
  expect(faults.numRunRows).toBe(LEAST_RUN + 5);
  expect(faults.runs[0]).toEqual({ from: 2, to: 2 + LEAST_RUN, ids: [1, 2], distinctWeights: null });
  expect(faults.longestCounted).toEqual({ from: 2 + LEAST_RUN, length: 3 });
  expect(scan.numRead).toBe(LEAST_RUN + 11);
  expect(rows).toHaveLength(6);
  // The rows beside what is left out are no neighbours: pairs are within the two and the three.
  expect(scan.overlap.report().pairs).toBe(3);
});

test('rows of zeros and of −1 do not count; a layer of zeros does not put load on expert 0', () => {
  const { scan, rows } = scanned(rowsOf([ROW, 1], [[0, 0, 0, 0], 2], [[-1, -1, -1, -1], 3], [[0, 0, 5, 6], 1]), SHAPE);
  const faults = scan.faults.report();
  expect(rows).toEqual([0, 6]);
  expect(faults.zeros).toEqual({ numRows: 2, ranges: [[1, 3]] });
  expect(faults.missing).toEqual({ numRows: 3, ranges: [[3, 6]] });
  expect(faults.zeroLayerRows).toEqual([1, 0]);
  expect(scan.counts()[0]![0]).toBe(0);
});

test('an expert that a layer names twice is told; an id beyond the experts is an error with its place', () => {
  const { scan } = scanned(rowsOf([OTHER, 1], [[1, 1, 2, 3], 1]), SHAPE);
  expect(scan.faults.report().repeated).toEqual({ numRows: 1, firstRow: 1 });
  expect(() => scanned(rowsOf([OTHER, 9], [[1, 2, 9, 3], 1], [ROW, 4]), SHAPE)).toThrow(/id 9, ids are below 8.*EPLB/);
});

test('without a number of experts there are as many as the greatest id says', () => {
  const { scan } = scanned(rowsOf([ROW, 3], [[1, 2, 3, 700], 1]), { ...SHAPE, numExperts: null });
  expect(scan.numExperts).toBe(701);
  expect(scan.counts()[1]![700]).toBe(1);
  expect(scan.counts()[1]![4]).toBe(3);
});
