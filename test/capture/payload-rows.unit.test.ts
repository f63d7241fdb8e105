/** The rows of one payload after the other, through memory that stays. */

import { expect, test } from 'vitest';
import { PayloadRows } from '../../src/capture/payload-rows.ts';
import { rowShape } from '../../src/capture/row-shape.ts';
import { SpanWriter } from '../../src/capture/spans.ts';
import type { RoutedExpertDeltas } from '../../src/contract/model-runner-output.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';

/** Two entries a row. */
const shape = rowShape({ ...modelPreset('tiny'), numLayers: 1, topK: 2 });

/** A payload with these rows for each request; a row's entries are `first`, `first + 1`, and so on. */
function payload(first: number, ...counts: readonly number[]): RoutedExpertDeltas {
  const spans = new SpanWriter(counts.length);
  for (const [i, count] of counts.entries()) spans.add(i, 0, count);
  return spans.deltas(Uint8Array.from({ length: 2 * spans.numRows }, (_, i) => first + i));
}

test('every row is the one of the payload that was loaded last, whatever came before', () => {
  const rows = new PayloadRows(shape);
  const sizes = [[1, 1], [1, 1, 1, 1, 1, 1], [1], [40], [2, 1, 1], [1, 30], Array.from({ length: 50 }, () => 1)];
  for (const [i, counts] of sizes.entries()) {
    const deltas = payload(i * 10, ...counts);
    rows.load(deltas);
    let row = 0;
    for (const count of counts) {
      const expected = [...deltas.rows.subarray(2 * row, 2 * (row + count))];
      expect([...rows.rows(row, count)], `payload ${i}, row ${row}`).toEqual(expected);
      row += count;
    }
  }
});

test('a row of a step of decodes is a view that was made once', () => {
  const rows = new PayloadRows(shape);
  rows.load(payload(0, 1, 1, 1));
  const views = [0, 1, 2].map((row) => rows.rows(row, 1));
  rows.load(payload(50, 1, 1));
  expect([rows.rows(0, 1), rows.rows(1, 1)].map((view, i) => view === views[i])).toEqual([true, true]);
});
